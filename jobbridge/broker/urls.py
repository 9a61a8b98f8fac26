"""Broker URLs: to SQLAlchemy's and back, and the password kept out of what is shown.

kombu splits `jobbridge+postgresql://…` at the first `+` and hands the rest over whole; from the second URL of a
failover list on it hands over parts, and loses the query (kombu 5.7, `Connection.switch`). Both arrive here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy.engine import URL

from jobbridge.broker.errors import InvalidOption
from jobbridge.errors import ConfigurationError
from jobbridge.postgres.target import Target

_DRIVER = "postgresql+psycopg"
_FORM = "Write it as jobbridge+postgresql://user:password@host:5432/database."


def parse(text: str) -> URL:
    """Give SQLAlchemy's form of a broker URL, with or without `jobbridge+` in front.

    Raises:
        InvalidOption: It is no URL of Postgres.
    """
    try:
        text = text.strip()
        return Target.of(text.replace("jobbridge://", "postgresql://", 1)).sqlalchemy_url()
    except ConfigurationError as error:
        raise InvalidOption(str(error).replace("database URL", "broker URL"), hint=_FORM) from error


def from_parts(
    *, host: str | None, port: int | None, user: str | None, password: str | None, database: str | None
) -> URL:
    """Give SQLAlchemy's form of a URL that kombu took apart."""
    return URL.create(
        _DRIVER,
        username=user,
        password=password,
        host=host,
        port=port or None,
        database=(database or "").strip("/") or None,
    )


def shown(url: URL, *, password: str | None) -> str:
    """Write it as a broker URL, with `password` in place of the password if there is one."""
    if url.password is not None:
        url = url.set(password=password)
    if "password" in url.query:
        url = url.update_query_dict({"password": password or ""})
    text = url.set(drivername="jobbridge+postgresql").render_as_string(hide_password=False)
    return text.replace("%2A", "*")


def without_password(url: URL) -> tuple[str, str | None]:
    """Take the password out of the URL: the rest as text, and the password."""
    password = url.password if url.password is not None else _one(url.query.get("password"))
    bare = url._replace(password=None).difference_update_query(["password"])
    return bare.set(drivername="postgresql").render_as_string(hide_password=False), password


def _one(value: Any) -> str | None:
    return value if isinstance(value, str) or value is None else str(value[0])


class WholeUrl(str):
    """A URL that `Connection.switch` does not take apart, because it looks for `://` in vain."""

    def __contains__(self, part: object) -> bool:
        return part != "://" and str.__contains__(self, str(part))


class WholeUrls:
    """An iterator over failover URLs which keeps ours whole."""

    def __init__(self, urls: Iterator[str]) -> None:
        self._urls = urls

    def __iter__(self) -> WholeUrls:
        return self

    def __next__(self) -> str:
        url = next(self._urls)
        return WholeUrl(url) if url.startswith("jobbridge") else url
