"""A database's URL in its parts, as SQLAlchemy's `URL` has them; but to import that takes 0.25 s of processor time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, quote_plus

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

#: As SQLAlchemy names it.
DRIVER: Final = "postgresql+psycopg"


@dataclass(frozen=True, kw_only=True)
class Address:
    """The parts of a URL, unquoted.

    Attributes:
        query: By name; several values of one name are a sequence.
    """

    username: str | None = None
    password: str | None = field(default=None, repr=False)
    host: str | None = None
    port: int | None = None
    database: str | None = None
    query: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict, repr=False)

    def with_password(self, password: str | None) -> Address:
        """Give it with this password in place of its own; None: with none."""
        return replace(self, password=password)

    def written(self, scheme: str = "postgresql") -> str:
        """Write it as text, with the password if it has one."""
        parts = [f"{scheme}://"]
        if self.username is not None:
            parts.append(quote(self.username, safe=" +"))
            if self.password is not None:
                parts.append(f":{quote(self.password, safe=' +')}")
            parts.append("@")
        if self.host is not None:
            parts.append(f"[{self.host}]" if ":" in self.host else self.host)
        if self.port is not None:
            parts.append(f":{self.port}")
        if self.database is not None:
            parts.append(f"/{quote(self.database, safe=' +/')}")
        if self.query:
            parts.append(
                "?"
                + "&".join(
                    f"{quote_plus(name)}={quote_plus(value)}"
                    for name in sorted(self.query)
                    for value in _values(self.query[name])
                )
            )
        return "".join(parts)

    def sqlalchemy_url(self) -> URL:
        """Give SQLAlchemy's form, for the driver: without the schema, which only we read."""
        from sqlalchemy.engine import URL

        query = {name: value for name, value in self.query.items() if name != "schema"}

        return URL.create(
            DRIVER,
            username=self.username,
            password=self.password,
            host=self.host,
            port=self.port,
            database=self.database,
            query=query,
        )


def _values(value: str | tuple[str, ...]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else value
