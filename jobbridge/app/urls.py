"""Database URLs and broker URLs, one from the other."""

from __future__ import annotations

import re

from jobbridge.errors import ConfigurationError
from jobbridge.postgres.target import Target

#: The scheme of the broker and of the result backend.
BROKER_SCHEME = "jobbridge"

_POSTGRES = re.compile(r"^(?:jobbridge\+|sqla\+|sqlalchemy\+)?postgres(?:ql)?(?:\+\w+)?://(.*)$", re.DOTALL)


def database_url_of(url: str | None) -> str | None:
    """Give the plain `postgresql://…` form of a broker or database URL; None when it is no Postgres."""
    match = _POSTGRES.match(url or "")
    return f"postgresql://{match.group(1)}" if match and match.group(1) else None


def broker_url_for(database_url: str) -> str:
    """Give the broker URL for a database.

    Raises:
        ConfigurationError: It is not a Postgres URL.
    """
    url = database_url_of(database_url)
    if url is None:
        scheme = database_url.split("://")[0]
        raise ConfigurationError(
            f"The database URL starts with {scheme!r}, and only Postgres can hold the jobs.",
            hint="Set DATABASE_URL=postgresql://user:password@host/name.",
        )
    return f"{BROKER_SCHEME}+{url}"


def same_database(url: str, other: Target) -> bool:
    """Tell whether two URLs name one database, however their users, drivers and options differ."""
    return Target.of(url).place == other.place
