"""Database URLs and broker URLs, one from the other."""

from __future__ import annotations

from contextlib import suppress

from jobbridge.errors import ConfigurationError
from jobbridge.postgres.target import Target

#: The scheme of the broker and of the result backend.
BROKER_SCHEME = "jobbridge"


def database_url_of(broker_url: object) -> str | None:
    """Give the `postgresql://…` form of one of our broker URLs; None when it is another's, or names no database.

    Raises:
        ConfigurationError: It is ours, and cannot be read.
    """
    if not is_ours(broker_url):
        return None
    url = str(broker_url).split(";")[0].strip()
    target = Target.of(url.replace("jobbridge://", "postgresql://", 1))
    return target.url if target.parameters else None


def broker_url_for(database_url: str) -> str:
    """Give the broker URL for a database, however its URL is written.

    Raises:
        ConfigurationError: It is not a Postgres URL.
    """
    try:
        url = Target.of(database_url).url
    except ConfigurationError as error:
        if "://" not in database_url or "not one of Postgres" not in str(error):
            raise
        scheme = database_url.split("://")[0]
        raise ConfigurationError(
            f"The database URL starts with {scheme!r}, and only Postgres can hold the jobs.",
            hint="Set DATABASE_URL=postgresql://user:password@host/name.",
        ) from None
    return f"{BROKER_SCHEME}+{url}"


def default_broker_url(database_url: str | None) -> str:
    """Give the broker URL of an app that names none. Without a database that can be used it names none either."""
    if database_url:
        with suppress(ConfigurationError):  # said where the database is first used: perhaps it is never ours
            return broker_url_for(database_url)
    return f"{BROKER_SCHEME}+postgresql://"


def is_ours(broker_url: object) -> bool:
    """Tell whether messages go to our broker."""
    return isinstance(broker_url, str) and broker_url.startswith((f"{BROKER_SCHEME}+", f"{BROKER_SCHEME}://"))


def same_database(url: str, other: Target) -> bool:
    """Tell whether two URLs name one database, however their users, drivers and options differ."""
    return Target.of(url).place == other.place
