"""The tables that keep count of the jobs. Triggers on `jobs` write what changed; see `counts`."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from jobbridge.store.jobs.tables import metadata

#: Of statements that made or deleted many jobs: each adds its sums as rows of its own, which are merged later.
parts = sa.Sequence("job_count_parts", metadata=metadata, data_type=sa.BigInteger)

_UPDATED_OFTEN = {
    "fillfactor": 70,
    "autovacuum_vacuum_scale_factor": 0.02,
    "autovacuum_vacuum_threshold": 1000,
}


def _part() -> sa.Column[Any]:
    # 0: all that was folded and merged; else the sums of one statement that made or deleted many jobs.
    return sa.Column("part", sa.BigInteger, nullable=False, server_default=sa.text("0"))


def _index_parts(table: sa.Table) -> None:
    columns = [table.c.tenant, table.c.part] if "tenant" in table.c else [table.c.part]
    sa.Index(f"{table.name}_part_idx", *columns, postgresql_where=table.c.part != 0)


# All jobs of a tenant, by engine and status.
job_counts = sa.Table(
    "job_counts",
    metadata,
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("engine", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("jobs", sa.BigInteger, nullable=False),
    _part(),
    sa.PrimaryKeyConstraint("tenant", "engine", "status", "part", name="job_counts_pkey"),
    postgresql_with=_UPDATED_OFTEN,
)

_index_parts(job_counts)

# Those of them that were made in one hour; a cell without jobs is deleted. Tells what `clear-history` would delete.
job_hours = sa.Table(
    "job_hours",
    metadata,
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("hour", sa.DateTime(timezone=True), nullable=False),
    sa.Column("engine", sa.Text, nullable=False),
    sa.Column("jobs", sa.BigInteger, nullable=False),
    _part(),
    sa.PrimaryKeyConstraint("tenant", "status", "hour", "engine", "part", name="job_hours_pkey"),
    postgresql_with=_UPDATED_OFTEN,
)

sa.Index("job_hours_status_idx", job_hours.c.status, job_hours.c.hour, job_hours.c.tenant)
_index_parts(job_hours)

# What was not added to the two yet. Only ever inserted, so that no job waits for another one's count.
job_count_changes = sa.Table(
    "job_count_changes",
    metadata,
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("hour", sa.DateTime(timezone=True), nullable=False),
    sa.Column("engine_before", sa.Text),
    sa.Column("status_before", sa.Text),  # null: the job is new
    sa.Column("engine", sa.Text),
    sa.Column("status", sa.Text),  # null: it was deleted
    sa.Column("flow_hour", sa.DateTime(timezone=True)),  # in which it started or ended; null: it did neither
    sa.Column("flow_ms", sa.BigInteger),  # how long it had waited, or took; null: nobody knows
    postgresql_with={"autovacuum_vacuum_scale_factor": 0.0, "autovacuum_vacuum_threshold": 5000},
)


def _flow_columns() -> list[sa.Column[Any]]:
    return [
        sa.Column("span", sa.Text, nullable=False),  # `hour` or `day` (UTC); in the totals also `ever`
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("engine", sa.Text, nullable=False),
        # `processing`: jobs that started then, and how long they had waited. A final one: that ended so, and took.
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("bucket", sa.SmallInteger, nullable=False),  # of `flow.BOUNDS`; -1: the time is not known
        sa.Column("jobs", sa.BigInteger, nullable=False),
        sa.Column("ms", sa.BigInteger, nullable=False),  # of all of them together
        _part(),
    ]


# What happened in an hour or a day. Unlike the counts it is history: it stays when the jobs are deleted.
job_flow = sa.Table(
    "job_flow",
    metadata,
    sa.Column("tenant", sa.Text, nullable=False),
    *_flow_columns(),
    sa.PrimaryKeyConstraint(
        "tenant", "span", "at", "engine", "status", "bucket", "part", name="job_flow_pkey"
    ),
    postgresql_with=_UPDATED_OFTEN,
)

sa.Index("job_flow_age_idx", job_flow.c.span, job_flow.c.at, job_flow.c.tenant)
_index_parts(job_flow)

# The same of all tenants together, so that the whole installation is not summed up each time.
job_flow_totals = sa.Table(
    "job_flow_totals",
    metadata,
    *_flow_columns(),
    sa.PrimaryKeyConstraint("span", "at", "engine", "status", "bucket", "part", name="job_flow_totals_pkey"),
    info={"is_local": True},
    postgresql_with=_UPDATED_OFTEN,
)

_index_parts(job_flow_totals)
