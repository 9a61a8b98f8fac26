"""Database URLs and broker URLs, one from the other."""

from __future__ import annotations

import re

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
        ValueError: It is not a Postgres URL.
    """
    url = database_url_of(database_url)
    if url is None:
        scheme = database_url.split("://")[0]
        raise ValueError(f"DATABASE_URL starts with {scheme!r}; a postgresql:// URL is needed.")
    return f"{BROKER_SCHEME}+{url}"
