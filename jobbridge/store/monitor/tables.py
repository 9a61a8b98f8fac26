"""What changes in jobs, for those who watch. A trigger on `jobs` writes it while somebody does; see `live`."""

from __future__ import annotations

import sqlalchemy as sa

from jobbridge.store.jobs.tables import metadata

# Both stay on one node, whatever `jobs` does: who watches, watches all tenants.
_LOCAL = {"is_local": True}

sequence = sa.Sequence("job_events_event_id_seq", metadata=metadata, data_type=sa.BigInteger)

# Which jobs changed, and nothing of them: what they are now is read when it is told.
job_events = sa.Table(
    "job_events",
    metadata,
    sa.Column("event_id", sa.BigInteger, nullable=False, autoincrement=False),
    sa.Column("job_id", sa.Uuid, nullable=False),
    sa.PrimaryKeyConstraint("event_id", name="job_events_pkey"),
    prefixes=["UNLOGGED"],
    info=_LOCAL,
    postgresql_with={"autovacuum_vacuum_scale_factor": 0.0, "autovacuum_vacuum_threshold": 20000},
)

# A row for each process that shows jobs to somebody.
job_watchers = sa.Table(
    "job_watchers",
    metadata,
    sa.Column("watcher_id", sa.Uuid, nullable=False),
    sa.Column("until", sa.DateTime(timezone=True), nullable=False),
    sa.Column("is_asleep", sa.Boolean, nullable=False, server_default=sa.text("false")),
    sa.PrimaryKeyConstraint("watcher_id", name="job_watchers_pkey"),
    info=_LOCAL,
    postgresql_with={"fillfactor": 50},
)
