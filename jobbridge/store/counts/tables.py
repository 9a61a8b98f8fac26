"""The tables that keep count of the jobs. Triggers on `jobs` write what changed; see `counting`."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy import BigInteger, Column, DateTime, Index, PrimaryKeyConstraint, SmallInteger, Table, Text

from jobbridge.store.jobs.tables import metadata

#: Of statements that made or deleted many jobs: each adds its sums as rows of its own, which are merged later.
parts = sa.Sequence("job_count_parts", metadata=metadata, data_type=BigInteger)

_UPDATED_OFTEN = {
    "fillfactor": 70,
    "autovacuum_vacuum_scale_factor": 0.02,
    "autovacuum_vacuum_threshold": 1000,
}


def _part() -> Column[Any]:
    # 0: all that was folded and merged; else the sums of one statement that made or deleted many jobs.
    return Column("part", BigInteger, nullable=False, server_default=sa.text("0"))


def _index_parts(table: Table) -> None:
    columns = [table.c.tenant, table.c.part] if "tenant" in table.c else [table.c.part]
    Index(f"{table.name}_part_idx", *columns, postgresql_where=table.c.part != 0)


# All jobs of a tenant, by engine and status.
job_counts = Table(
    "job_counts",
    metadata,
    Column("tenant", Text, nullable=False),
    Column("engine", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("jobs", BigInteger, nullable=False),
    _part(),
    PrimaryKeyConstraint("tenant", "engine", "status", "part", name="job_counts_pkey"),
    postgresql_with=_UPDATED_OFTEN,
)

_index_parts(job_counts)

# Those of them that were made in one hour; a cell without jobs is deleted. Tells what `clear-history` would delete.
job_hours = Table(
    "job_hours",
    metadata,
    Column("tenant", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("hour", DateTime(timezone=True), nullable=False),
    Column("engine", Text, nullable=False),
    Column("jobs", BigInteger, nullable=False),
    _part(),
    PrimaryKeyConstraint("tenant", "status", "hour", "engine", "part", name="job_hours_pkey"),
    postgresql_with=_UPDATED_OFTEN,
)

Index("job_hours_status_idx", job_hours.c.status, job_hours.c.hour, job_hours.c.tenant)
_index_parts(job_hours)

# What was not added to the two yet. Only ever inserted, so that no job waits for another one's count.
job_count_changes = Table(
    "job_count_changes",
    metadata,
    Column("tenant", Text, nullable=False),
    Column("hour", DateTime(timezone=True), nullable=False),
    Column("engine_before", Text),
    Column("status_before", Text),  # null: the job is new
    Column("engine", Text),
    Column("status", Text),  # null: it was deleted
    Column("flow_hour", DateTime(timezone=True)),  # in which it started or ended; null: it did neither
    Column("flow_ms", BigInteger),  # how long it had waited, or took; null: nobody knows
    postgresql_with={"autovacuum_vacuum_scale_factor": 0.0, "autovacuum_vacuum_threshold": 5000},
)


def _flow_columns() -> list[Column[Any]]:
    return [
        Column("span", Text, nullable=False),  # `hour` or `day` (UTC); in the totals also `ever`
        Column("at", DateTime(timezone=True), nullable=False),
        Column("engine", Text, nullable=False),
        # `processing`: jobs that started then, and how long they had waited. A final one: that ended so, and took.
        Column("status", Text, nullable=False),
        Column("bucket", SmallInteger, nullable=False),  # of `flow.BOUNDS`; -1: the time is not known
        Column("jobs", BigInteger, nullable=False),
        Column("ms", BigInteger, nullable=False),  # of all of them together
        _part(),
    ]


# What happened in an hour or a day. Unlike the counts it is history: it stays when the jobs are deleted.
job_flow = Table(
    "job_flow",
    metadata,
    Column("tenant", Text, nullable=False),
    *_flow_columns(),
    PrimaryKeyConstraint("tenant", "span", "at", "engine", "status", "bucket", "part", name="job_flow_pkey"),
    postgresql_with=_UPDATED_OFTEN,
)

Index("job_flow_age_idx", job_flow.c.span, job_flow.c.at, job_flow.c.tenant)
_index_parts(job_flow)

# The same of all tenants together, so that the whole installation is not summed up each time.
job_flow_totals = Table(
    "job_flow_totals",
    metadata,
    *_flow_columns(),
    PrimaryKeyConstraint("span", "at", "engine", "status", "bucket", "part", name="job_flow_totals_pkey"),
    info={"is_local": True},
    postgresql_with=_UPDATED_OFTEN,
)

_index_parts(job_flow_totals)
