"""The tables `jobs`, `job_details`, `job_keys` and `job_singletons` as SQLAlchemy metadata.

Migrations make them, and a test holds both equal. Query these tables freely; write to them through
`jobbridge.recording` only.

What shaped them:

- A row of `jobs` is written three to five times in seconds. No index, and no predicate of an index, names a column that
  changes on the way of a CE job before its end, so those updates stay in their page (HOT) and touch no index;
  `fillfactor` leaves room for them. So no index names `status`. Open jobs have one by `completed_at`, which is null
  until the end, and those that ended otherwise than well by `unsuccessful`, which most jobs never have. The one update
  at the end pays for it: 0.4 kB of WAL (decision 0017).
- Vacuum by a small share of the table: most dead rows are made at its young end.
- Every key and index contains `tenant`, and no foreign key points anywhere: the tables can be distributed by tenant.

Source: PostgreSQL manual, "Heap-Only Tuples (HOT)": also the predicate of a partial index must not change.
"""

from __future__ import annotations

from sqlalchemy import (
    REAL,
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from jobbridge.core.status import JobStatus

metadata = MetaData()

_UPDATED_OFTEN = {
    "fillfactor": 70,
    "autovacuum_vacuum_scale_factor": 0.02,
    "autovacuum_vacuum_threshold": 1000,
}
_STATUSES = ", ".join(f"'{status}'" for status in JobStatus)
_NOW = text("now()")

jobs = Table(
    "jobs",
    metadata,
    Column("tenant", Text, nullable=False),
    Column("job_id", Uuid, nullable=False),
    Column("task_id", Text, nullable=False),  # Celery's; differs from job_id only when it is no uuid
    Column("type", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("metadata", JSONB, nullable=False, server_default=text("'{}'")),
    Column("user_id", Uuid),
    Column("runner_type", Text, nullable=False),
    Column("external_id", Text),
    Column("external_run_id", Text),
    Column("queue", Text),
    Column("priority", SmallInteger, nullable=False, server_default=text("0")),
    Column("run_at", DateTime(timezone=True)),
    Column("expires_at", DateTime(timezone=True)),
    Column("singleton_key", Text),
    Column("root_id", Uuid),
    Column("parent_id", Uuid),
    Column("group_id", Text),
    Column("delivery", Uuid),
    # Text and not jsonb: it must come out as it went in, and jsonb alters numbers and refuses NUL characters.
    Column("message", Text),
    Column("undelivered_since", DateTime(timezone=True)),
    Column("relayed_at", DateTime(timezone=True)),
    Column("attempt", Integer, nullable=False, server_default=text("0")),
    Column("max_attempts", Integer),
    Column("worker", Text),
    Column("worker_number", BigInteger),  # job_workers.number; no index, so that a start stays in its page
    Column("broker", Text),  # where the message of a CE job is, if not in this database
    Column("progress", REAL),
    Column("progress_message", Text),
    Column("result", JSONB),
    Column("result_payload", LargeBinary),
    Column("result_type", Text),
    Column("error", Text),
    Column("traceback", Text),
    Column("cancelled_by", Text),
    Column("cancel_reason", Text),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
    Column("updated_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
    Column("started_at", DateTime(timezone=True)),
    Column("completed_at", DateTime(timezone=True)),  # null while it is open; a trigger sees to both
    Column("unsuccessful", Text),  # its status, if it ended otherwise than completed
    # In this order: AsyncResult knows a task id, and no tenant.
    PrimaryKeyConstraint("job_id", "tenant", name="jobs_pkey"),
    CheckConstraint(f"status IN ({_STATUSES})", name="jobs_status_check"),
    postgresql_with=_UPDATED_OFTEN,
)

# Where the engine has another id for it than the job's own: workflows of schedules, tasks whose id is no uuid.
Index(
    "jobs_engines_id_idx",
    jobs.c.external_id,
    jobs.c.tenant,
    postgresql_where=text("external_id <> job_id::text"),
)
Index("jobs_tenant_newest_idx", jobs.c.tenant, jobs.c.created_at.desc(), jobs.c.job_id.desc())
Index("jobs_newest_idx", jobs.c.created_at.desc(), jobs.c.job_id.desc(), jobs.c.tenant)
# What is rare, and looked for: jobs that are open, and those that did not end well, by when they were made and ended.
Index(
    "jobs_open_idx",
    jobs.c.created_at,
    jobs.c.job_id,
    jobs.c.tenant,
    postgresql_where=jobs.c.completed_at.is_(None),
)
Index(
    "jobs_unsuccessful_idx",
    jobs.c.unsuccessful,
    jobs.c.created_at.desc(),
    jobs.c.job_id.desc(),
    jobs.c.tenant,
    postgresql_where=jobs.c.unsuccessful.is_not(None),
)
Index(
    "jobs_tenant_unsuccessful_idx",
    jobs.c.tenant,
    jobs.c.unsuccessful,
    jobs.c.created_at.desc(),
    jobs.c.job_id.desc(),
    postgresql_where=jobs.c.unsuccessful.is_not(None),
)
Index(
    "jobs_unsuccessful_ended_idx",
    jobs.c.completed_at,
    jobs.c.tenant,
    jobs.c.unsuccessful,
    postgresql_where=jobs.c.unsuccessful.is_not(None),
)
# What belongs together: few jobs were sent by others, or are of a group. None of these columns changes.
Index(
    "jobs_root_idx",
    jobs.c.tenant,
    jobs.c.root_id,
    jobs.c.created_at,
    jobs.c.job_id,
    postgresql_where=jobs.c.root_id != jobs.c.job_id,
)
Index(
    "jobs_group_idx",
    jobs.c.tenant,
    jobs.c.group_id,
    jobs.c.created_at,
    jobs.c.job_id,
    postgresql_where=jobs.c.group_id.is_not(None),
)
# What the relay has to deliver: EE only, and only until an engine has it.
Index(
    "jobs_undelivered_idx",
    jobs.c.undelivered_since,
    jobs.c.tenant,
    postgresql_where=jobs.c.undelivered_since.is_not(None),
)

job_details = Table(
    "job_details",
    metadata,
    Column("tenant", Text, nullable=False),
    Column("detail_id", Uuid, nullable=False, server_default=text("gen_random_uuid()")),
    Column("job_id", Uuid, nullable=False),
    Column("sequence", BigInteger, Identity(always=False), nullable=False),
    Column("step_name", Text, nullable=False),
    Column("step_key", Text),
    Column("status", Text, nullable=False),
    Column("retry_count", Integer, nullable=False, server_default=text("0")),  # the attempt, 1-based
    Column("result", JSONB),
    Column("metadata", JSONB, nullable=False, server_default=text("'{}'")),
    Column("error", Text),
    Column("traceback", Text),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
    Column("updated_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
    Column("processed_at", DateTime(timezone=True)),
    PrimaryKeyConstraint("tenant", "detail_id", name="job_details_pkey"),
    CheckConstraint(f"status IN ({_STATUSES})", name="job_details_status_check"),
    postgresql_with=_UPDATED_OFTEN,
)

Index("job_details_job_idx", job_details.c.tenant, job_details.c.job_id, job_details.c.sequence)

# Jobs that went to another engine than theirs: few, and the doctor asks for them. Neither column changes.
Index(
    "job_details_fallback_idx",
    job_details.c.created_at,
    job_details.c.tenant,
    postgresql_where=job_details.c.step_name == "fallback",
)

job_keys = Table(
    "job_keys",
    metadata,
    Column("tenant", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("value", LargeBinary),
    Column("counter", BigInteger),
    Column("expires_at", DateTime(timezone=True)),
    PrimaryKeyConstraint("tenant", "key", name="job_keys_pkey"),
    postgresql_with=_UPDATED_OFTEN,
)

Index(
    "job_keys_expiry_idx",
    job_keys.c.expires_at,
    job_keys.c.tenant,
    postgresql_where=job_keys.c.expires_at.is_not(None),
)

# Who holds a singleton key. A row outlives its job: whoever takes the key looks at the job's status. Only jobs with a
# key have one, so that jobs without it pay nothing.
job_singletons = Table(
    "job_singletons",
    metadata,
    Column("tenant", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("job_id", Uuid, nullable=False),
    Column("taken_at", DateTime(timezone=True), nullable=False, server_default=text("clock_timestamp()")),
    PrimaryKeyConstraint("tenant", "key", name="job_singletons_pkey"),
    postgresql_with=_UPDATED_OFTEN,
)
