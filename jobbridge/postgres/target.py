"""Where connections go: a database's URL, as people write it, read into libpq's parameters. The only reader there is.

    postgresql://user:password@host:5432/database?sslmode=verify-full
    postgresql://user@first:5432,second:5433/database?target_session_attrs=primary
    postgresql:///database?host=/run/postgresql
    postgres://…   psql://…   postgis://…   postgresql+psycopg://…   +psycopg2   +asyncpg   jobbridge+postgresql://…
    host=db.example port=5432 dbname=database user=user password=password
    postgresql://…/database?schema=background_jobs

The parts are taken apart as SQLAlchemy does, which bears a password that is not quoted; libpq does not. What other
drivers write into the query is translated where libpq has a word for it (`ssl=true`), left out where it is about a
driver alone (`pgbouncer=true`), and else refused by its name. `schema` (JDBC: `currentSchema`) says where the job
tables are; libpq does not hear of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from jobbridge.errors import ConfigurationError
from jobbridge.postgres.address import Address
from jobbridge.postgres.schema.names import PUBLIC, checked

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

_URL = re.compile(
    r"""
    ^(?:[\w.:]+\+)?(?:postgres(?:ql)?|psql|pgsql|postgis)(?:\+\w+)?://
    (?:(?P<user>[^:/]*)(?::(?P<password>[^@]*))?@)?
    (?P<hosts>[^/?]*)
    (?:/(?P<database>[^?]*))?
    (?:\?(?P<query>.*))?$
    """,
    re.VERBOSE | re.DOTALL,
)
_HOST = re.compile(r"^(?:\[(?P<ipv6>[^\]]+)\]|(?P<name>[^:]*))(?::(?P<port>\d*))?$")
#: libpq's own form. A word and `=` before anything that a URL begins with.
_CONNINFO = re.compile(r"^\w+\s*=")
#: In that form, ours stands at the end.
_CONNINFO_SCHEMA = re.compile(r"\s+schema\s*=\s*(?P<schema>[^\s=]+)\s*$")
#: What a pool, an ORM or another driver reads, and what changes nothing for us.
_OF_OTHER_DRIVERS = frozenset(
    [
        *("pgbouncer", "connection_limit", "pool_timeout", "statement_cache_size", "prepareThreshold"),
        *("prepared_statement_cache_size", "conn_max_age", "conn_health_checks", "socket_timeout"),
    ]
)
#: asyncpg's and JDBC's `ssl` → libpq's `sslmode`.
_SSL_MODES = {
    **dict.fromkeys(("true", "1", "yes", "on", "t"), "require"),
    **dict.fromkeys(("false", "0", "no", "off", "f"), "disable"),
    **{mode: mode for mode in ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")},
}
#: As Prisma and JDBC write it.
_SCHEMA = ("schema", "currentSchema")
_FORM = "Write it as postgresql://user:password@host:5432/database, special characters as %XX."


@dataclass(frozen=True)
class Target:
    """A database, and how to get in.

    Attributes:
        parameters: By libpq's names; hosts and ports are lists with commas.
        schema: Where the job tables are.
    """

    parameters: Mapping[str, str]
    schema: str = PUBLIC

    @classmethod
    def of(cls, url: str) -> Target:
        """Read a URL.

        Raises:
            ConfigurationError: It is no URL of Postgres, has a parameter that libpq does not know, or names a schema
                that cannot be ours.
        """
        url = url.strip()
        if _CONNINFO.match(url):
            schemas = []
            while said := _CONNINFO_SCHEMA.search(url):
                url = url[: said.start()]
                schemas.append(said["schema"])
            return cls._checked(_of_conninfo(url), schemas)
        parts = _URL.match(url)
        if parts is None:
            scheme = url.split("://", 1)[0] if "://" in url else "no scheme"
            raise ConfigurationError(f"The database URL is not one of Postgres: {scheme!r}.", hint=_FORM)
        found = {
            "user": unquote(parts["user"] or ""),
            "password": unquote(parts["password"] or ""),
            "dbname": unquote(parts["database"] or ""),
        }
        if any("@" in (parts[name] or "") for name in ("hosts", "database")):
            raise ConfigurationError(
                "The database URL has an '@' behind the one that ends user and password.", hint=_FORM
            )
        asked_for = parse_qsl(parts["query"] or "", keep_blank_values=True)
        schemas = [value for name, value in asked_for if name in _SCHEMA]
        query = _translated([(name, value) for name, value in asked_for if name not in _SCHEMA])
        found |= {name: value for name, value in query if name != "host"}
        # SQLAlchemy's way to say several hosts is to repeat `host=name:port`; libpq's is a list.
        asked = [each for name, value in query if name == "host" for each in value.split(",")]
        found |= _hosts(asked or [each for each in parts["hosts"].split(",") if each], found.get("port", ""))
        return cls._checked(found, schemas)

    @classmethod
    def _checked(cls, found: Mapping[str, str], schemas: list[str]) -> Target:
        target = cls({name: value for name, value in found.items() if value}, _one(schemas))
        try:
            make_conninfo("", **dict(target.parameters))
        except ProgrammingError as error:
            reason = str(error).strip()
            raise ConfigurationError(f"The database URL cannot be read: {reason}.", hint=_FORM) from error
        if any("\x00" in value for value in target.parameters.values()):
            raise ConfigurationError("The database URL holds a NUL.", hint=_FORM)
        return target

    def __repr__(self) -> str:
        return f"Target({self!s})"

    def __str__(self) -> str:
        """Say which database it is; never the password."""
        places = []
        for host, port in self.hosts:
            places.append(f"{host or 'the local socket'}{f':{port}' if port else ''}")
        return f"Postgres database {self.database!r} at {', '.join(places)}"

    @property
    def database(self) -> str | None:
        return self.parameters.get("dbname")

    @property
    def hosts(self) -> list[tuple[str, str]]:
        """Give host and port of each; empty where nothing was said."""
        hosts = self.parameters.get("host", "").split(",")
        ports = self.parameters.get("port", "").split(",")
        if len(ports) == 1:
            ports *= len(hosts)
        return list(zip(hosts, ports, strict=False))

    @property
    def place(self) -> tuple[object, ...]:
        """Give what two URLs of one database have in common, however users, drivers and options differ."""
        return (*((host, port or "5432") for host, port in self.hosts), self.database)

    @property
    def url(self) -> str:
        """Write it in libpq's form, with the password; and with the schema, which only we read, if it is not public."""
        return self.address.written()

    def sqlalchemy_url(self) -> URL:
        """Give SQLAlchemy's form, for alembic and for whoever queries by SQLAlchemy."""
        return self.address.sqlalchemy_url()

    @property
    def address(self) -> Address:
        """Give it as the parts of a URL."""
        rest: dict[str, Any] = dict(self.parameters)
        user, password, database = (rest.pop(name, None) for name in ("user", "password", "dbname"))
        hosts = self.hosts
        if self.schema != PUBLIC:
            rest["schema"] = self.schema
        if is_plain := (len(hosts) == 1 and "/" not in hosts[0][0]):
            rest.pop("host", None), rest.pop("port", None)
        elif len(hosts) > 1:
            rest.pop("port", None)
            rest["host"] = tuple(f"{host}:{port}" if port else host for host, port in hosts)
        return Address(
            username=user,
            password=password,
            host=hosts[0][0] or None if is_plain else None,
            port=int(hosts[0][1]) if is_plain and hosts[0][1] else None,
            database=database,
            query=rest,
        )


def _of_conninfo(text: str) -> dict[str, str]:
    """Read libpq's own form, `key=value key='other value'`."""
    try:
        found = {name: str(value) for name, value in conninfo_to_dict(text).items() if value is not None}
    except ProgrammingError:
        # libpq's words quote what it could not read, which may be the password.
        raise ConfigurationError(
            "The database's parameters, written as key=value, cannot be read.",
            hint="Quote a value with spaces as 'it has them'; or write a URL: postgresql://user:password@host/name.",
        ) from None
    hosts = _hosts(found.pop("host", "").split(","), "") if found.get("host") else {}
    return found | {name: value for name, value in hosts.items() if value}


def _translated(query: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Give the query in libpq's words."""
    known: list[tuple[str, str]] = []
    for name, value in query:
        if name in _OF_OTHER_DRIVERS:
            continue
        if name == "ssl":
            mode = _SSL_MODES.get(value.lower(), value.lower())
            if mode not in _SSL_MODES.values():
                raise ConfigurationError(
                    f"The database URL says ssl={value}.",
                    hint="Write sslmode=require, or another of libpq's.",
                )
            known.append(("sslmode", mode))
        else:
            known.append((name, value))
    return known


def _one(schemas: list[str]) -> str:
    """Give the schema that a URL and the setting agree on."""
    named = sorted({checked(schema) for schema in schemas if schema})
    if len(named) > 1:
        raise ConfigurationError(
            f"The database URL and JOBBRIDGE_SCHEMA name two schemas: {', '.join(named)}.",
            hint="Leave schema=… out of the URL, or let both say the same.",
        )
    return named[0] if named else PUBLIC


def _hosts(given: list[str], port: str) -> dict[str, str]:
    hosts, ports = [], []
    for each in given:
        # A socket's folder is written as %2Frun%2Fpostgresql, and may hold a colon.
        name = unquote(each)
        parts = None if name.startswith("/") else _HOST.match(name)
        if parts is None and not name.startswith("/"):
            raise ConfigurationError(f"The database URL names the host {name!r}.", hint=_FORM)
        hosts.append(name if parts is None else parts["ipv6"] or parts["name"])
        ports.append((parts["port"] if parts is not None else "") or "")
    return {"host": ",".join(hosts), "port": ",".join(ports) if any(ports) else port}
