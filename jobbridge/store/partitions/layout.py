"""Which partitions there are, as Postgres's catalog has it: there is no table of our own."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import LiteralString
from uuid import UUID

from psycopg import sql

from jobbridge.postgres.caller_connection import DriverConnection
from jobbridge.store.partitions.spans import Width, instant_of

#: The tables that have partitions, of the same bounds.
PARTITIONED = ("jobs", "job_details")
#: Where a job goes whose id is of no partition's time: it is none of ours, or the partition is missing.
DEFAULT = "default"

#: Their width is said there, since a table in partitions has no options.
_COMMENT = "In partitions by {}: jobbridge migrate --partition-by."
_WIDTH: LiteralString = """
SELECT substring(obj_description(oid, 'pg_class') FROM '^In partitions by ([a-z]+):'),
    relkind = 'p'
FROM pg_class WHERE oid = to_regclass('public.jobs')
"""

_PARTITIONS: LiteralString = """
SELECT substring(part.relname FROM 6), pg_get_expr(part.relpartbound, part.oid)
FROM pg_inherits JOIN pg_class AS part ON part.oid = inhrelid
WHERE inhparent = to_regclass('public.jobs')
ORDER BY part.relname
"""

#: What was detached and is not gone yet: whoever did it stopped in between.
DETACHED_SAYS = "No longer a partition: to be dropped by jobbridge."
_DETACHED: LiteralString = """
SELECT substring(relname FROM 6), obj_description(oid, 'pg_class')
FROM pg_class
WHERE relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = to_regclass('public.jobs')) AND relkind = 'r'
  AND NOT relispartition AND relname ~ '^jobs_p[0-9]{8}$'
  AND starts_with(obj_description(oid, 'pg_class'), %(says)s)
ORDER BY relname
"""

_BOUNDS = re.compile(r"FROM \('([0-9a-f-]+)'\) TO \('([0-9a-f-]+)'\)")


@dataclass(frozen=True, kw_only=True, slots=True)
class Partition:
    """One partition of `jobs`, and that of `job_details` beside it.

    Attributes:
        name: Behind `jobs_` and `job_details_`.
        first: The ids are not below it.
        end: The ids are below it.
    """

    name: str
    first: UUID
    end: UUID

    @property
    def starts_at(self) -> datetime:
        return instant_of(self.first)

    @property
    def ends_at(self) -> datetime:
        return instant_of(self.end)


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """How the job tables are divided.

    Attributes:
        width: Of the partitions that are made from now on.
        partitions: By time.
        has_default: Whether there is one for all other ids.
    """

    width: Width
    partitions: tuple[Partition, ...]
    has_default: bool

    @property
    def ends_at(self) -> datetime | None:
        """Up to when there are partitions."""
        return self.partitions[-1].ends_at if self.partitions else None


def layout_of(connection: DriverConnection) -> Layout | None:
    """Read it; None: the tables are whole."""
    row = connection.execute(_WIDTH).fetchone()
    if row is None or not row[1]:
        return None
    rows = connection.execute(_PARTITIONS).fetchall()
    partitions = [
        Partition(name=name, first=UUID(found[1]), end=UUID(found[2]))
        for name, bounds in rows
        if (found := _BOUNDS.search(bounds))
    ]
    return Layout(
        width=Width(row[0] or Width.MONTH),
        partitions=tuple(sorted(partitions, key=lambda each: each.first.int)),
        has_default=any(bounds == "DEFAULT" for _, bounds in rows),
    )


def detached(connection: DriverConnection) -> list[Partition]:
    """Give what was detached and has not been dropped."""
    rows = connection.execute(_DETACHED, {"says": DETACHED_SAYS}).fetchall()
    return [
        Partition(name=name, first=UUID(found[1]), end=UUID(found[2]))
        for name, said in rows
        if (found := _BOUNDS.search(said))
    ]


def say_detached(connection: DriverConnection, partition: Partition) -> None:
    """Note that both tables are to be dropped, and what ids were in them."""
    said = sql.Literal(f"{DETACHED_SAYS} FROM ('{partition.first}') TO ('{partition.end}')")
    for table in PARTITIONED:
        part = table_of(table, partition.name)
        connection.execute(sql.SQL("COMMENT ON TABLE {} IS {}").format(part, said))


def say_width(connection: DriverConnection, width: Width) -> None:
    """Note how wide the partitions are that come."""
    said = sql.Literal(_COMMENT.format(width.value))
    connection.execute(sql.SQL("COMMENT ON TABLE public.jobs IS {}").format(said))


def name_of(starts_at: datetime) -> str:
    """Name the partition that begins then."""
    return f"p{starts_at:%Y%m%d}"


def table_of(table: str, name: str) -> sql.Identifier:
    """Name a partition of a table, with its schema."""
    return sql.Identifier("public", f"{table}_{name}")
