"""Broker URLs: to their parts and back, and the password kept out of what is shown.

kombu splits `jobbridge+postgresql://…` at the first `+` and hands the rest over whole; from the second URL of a
failover list on it hands over parts, and loses the query (kombu 5.7, `Connection.switch`). Both arrive here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from jobbridge.broker.errors import InvalidOption
from jobbridge.errors import ConfigurationError
from jobbridge.postgres.address import Address
from jobbridge.postgres.target import Target

_FORM = "Write it as jobbridge+postgresql://user:password@host:5432/database."


def parse(text: str) -> Address:
    """Give the parts of a broker URL, with or without `jobbridge+` in front.

    Raises:
        InvalidOption: It is no URL of Postgres.
    """
    try:
        text = text.strip()
        return Target.of(text.replace("jobbridge://", "postgresql://", 1)).address
    except ConfigurationError as error:
        raise InvalidOption(str(error).replace("database URL", "broker URL"), hint=_FORM) from error


def from_parts(
    *, host: str | None, port: int | None, user: str | None, password: str | None, database: str | None
) -> Address:
    """Give the parts of a URL that kombu took apart."""
    return Address(
        username=user,
        password=password,
        host=host,
        port=port or None,
        database=(database or "").strip("/") or None,
    )


def shown(address: Address, *, password: str | None) -> str:
    """Write it as a broker URL, with `password` in place of the password if there is one."""
    if address.password is not None:
        address = address.with_password(password)
    if "password" in address.query:
        address = replace(address, query={**address.query, "password": password or ""})
    return address.written("jobbridge+postgresql").replace("%2A", "*")


def without_password(address: Address) -> tuple[str, str | None]:
    """Take the password out of the URL: the rest as text, and the password."""
    query = dict(address.query)
    asked = query.pop("password", None)
    if isinstance(asked, tuple):
        asked = asked[0]
    bare = replace(address, password=None, query=query)
    return bare.written(), address.password if address.password is not None else asked


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
