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

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from jobbridge.core.status import JobStatus

metadata = sa.MetaData()

_UPDATED_OFTEN = {
    "fillfactor": 70,
    "autovacuum_vacuum_scale_factor": 0.02,
    "autovacuum_vacuum_threshold": 1000,
}
_STATUSES = ", ".join(f"'{status}'" for status in JobStatus)
_NOW = sa.text("now()")

jobs = sa.Table(
    "jobs",
    metadata,
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("job_id", sa.Uuid, nullable=False),
    sa.Column("task_id", sa.Text, nullable=False),  # Celery's; differs from job_id only when it is no uuid
    sa.Column("type", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("metadata", JSONB, nullable=False, server_default=sa.text("'{}'")),
    sa.Column("user_id", sa.Uuid),
    sa.Column("runner_type", sa.Text, nullable=False),
    sa.Column("external_id", sa.Text),
    sa.Column("external_run_id", sa.Text),
    sa.Column("queue", sa.Text),
    sa.Column("priority", sa.SmallInteger, nullable=False, server_default=sa.text("0")),
    sa.Column("run_at", sa.DateTime(timezone=True)),
    sa.Column("expires_at", sa.DateTime(timezone=True)),
    sa.Column("singleton_key", sa.Text),
    sa.Column("root_id", sa.Uuid),
    sa.Column("parent_id", sa.Uuid),
    sa.Column("group_id", sa.Text),
    sa.Column("delivery", sa.Uuid),
    # Text and not jsonb: it must come out as it went in, and jsonb alters numbers and refuses NUL characters.
    sa.Column("message", sa.Text),
    sa.Column("undelivered_since", sa.DateTime(timezone=True)),
    sa.Column("relayed_at", sa.DateTime(timezone=True)),
    sa.Column("attempt", sa.Integer, nullable=False, server_default=sa.text("0")),
    sa.Column("max_attempts", sa.Integer),
    sa.Column("worker", sa.Text),
    sa.Column(
        "worker_number", sa.BigInteger
    ),  # job_workers.number; no index, so that a start stays in its page
    sa.Column("broker", sa.Text),  # where the message of a CE job is, if not in this database
    sa.Column("progress", sa.REAL),
    sa.Column("progress_message", sa.Text),
    sa.Column("result", JSONB),
    sa.Column("result_payload", sa.LargeBinary),
    sa.Column("result_type", sa.Text),
    sa.Column("error", sa.Text),
    sa.Column("traceback", sa.Text),
    sa.Column("cancelled_by", sa.Text),
    sa.Column("cancel_reason", sa.Text),
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=_NOW),
    sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False, server_default=_NOW),
    sa.Column("started_at", sa.DateTime(timezone=True)),
    sa.Column("completed_at", sa.DateTime(timezone=True)),  # null while it is open; a trigger sees to both
    sa.Column("unsuccessful", sa.Text),  # its status, if it ended otherwise than completed
    sa.Column(
        "chord_id", sa.Text
    ),  # the chord that waits for its end, or for that of the chain that it begins
    sa.Column("chord_index", sa.Integer),  # its place among the parts; null: it is none, but leads to one
    sa.Column("called_by", sa.Uuid),  # the job that waits for it; a trigger counts its end there (0028)
    sa.Column("batch_id", sa.Uuid),  # from its metadata, by a trigger: no statement here names it
    sa.Column("is_ruled", sa.Boolean),  # it has rows in `job_holds`, or had; null: it never had
    # In this order: AsyncResult knows a task id, and no tenant.
    sa.PrimaryKeyConstraint("job_id", "tenant", name="jobs_pkey"),
    sa.CheckConstraint(f"status IN ({_STATUSES})", name="jobs_status_check"),
    postgresql_with=_UPDATED_OFTEN,
)

# Where the engine has another id for it than the job's own: workflows of schedules, tasks whose id is no uuid.
sa.Index(
    "jobs_engines_id_idx",
    jobs.c.external_id,
    jobs.c.tenant,
    postgresql_where=sa.text("external_id <> job_id::text"),
)
# What is new comes last, where a full page is left as it is; the newest are read backward.
sa.Index("jobs_tenant_newest_idx", jobs.c.tenant, jobs.c.created_at, jobs.c.job_id)
sa.Index("jobs_newest_idx", jobs.c.created_at, jobs.c.job_id, jobs.c.tenant.desc())
# What is rare, and looked for: jobs that are open, and those that did not end well, by when they were made and ended.
sa.Index(
    "jobs_open_idx",
    jobs.c.created_at,
    jobs.c.job_id,
    jobs.c.tenant,
    postgresql_where=jobs.c.completed_at.is_(None),
)
sa.Index(
    "jobs_unsuccessful_idx",
    jobs.c.unsuccessful,
    jobs.c.created_at.desc(),
    jobs.c.job_id.desc(),
    jobs.c.tenant,
    postgresql_where=jobs.c.unsuccessful.is_not(None),
)
sa.Index(
    "jobs_tenant_unsuccessful_idx",
    jobs.c.tenant,
    jobs.c.unsuccessful,
    jobs.c.created_at.desc(),
    jobs.c.job_id.desc(),
    postgresql_where=jobs.c.unsuccessful.is_not(None),
)
sa.Index(
    "jobs_unsuccessful_ended_idx",
    jobs.c.completed_at,
    jobs.c.tenant,
    jobs.c.unsuccessful,
    postgresql_where=jobs.c.unsuccessful.is_not(None),
)
# What belongs together: few jobs were sent by others, or are of a group. None of these columns changes.
sa.Index(
    "jobs_root_idx",
    jobs.c.tenant,
    jobs.c.root_id,
    jobs.c.created_at,
    jobs.c.job_id,
    postgresql_where=jobs.c.root_id != jobs.c.job_id,
)
sa.Index(
    "jobs_group_idx",
    jobs.c.tenant,
    jobs.c.group_id,
    jobs.c.created_at,
    jobs.c.job_id,
    postgresql_where=jobs.c.group_id.is_not(None),
)
sa.Index(
    "jobs_chord_idx",
    jobs.c.chord_id,
    jobs.c.tenant,
    jobs.c.chord_index,
    postgresql_where=jobs.c.chord_id.is_not(None),
)
# Called jobs that have not ended: those that end with their caller, and a caller that ended otherwise.
sa.Index(
    "jobs_called_idx",
    jobs.c.tenant,
    jobs.c.called_by,
    postgresql_where=sa.text("called_by IS NOT NULL AND completed_at IS NULL"),
)
sa.Index(
    "jobs_batch_idx",
    jobs.c.batch_id,
    jobs.c.created_at,
    jobs.c.job_id,
    jobs.c.tenant,
    postgresql_where=jobs.c.batch_id.is_not(None),
)
sa.Index(
    "jobs_batch_open_idx",
    jobs.c.batch_id,
    jobs.c.tenant,
    postgresql_where=jobs.c.batch_id.is_not(None) & jobs.c.completed_at.is_(None),
)
# What the relay has to deliver: EE only, and only until an engine has it.
sa.Index(
    "jobs_undelivered_idx",
    jobs.c.undelivered_since,
    jobs.c.tenant,
    postgresql_where=jobs.c.undelivered_since.is_not(None),
)

job_details = sa.Table(
    "job_details",
    metadata,
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("detail_id", sa.Uuid, nullable=False, server_default=sa.text("gen_random_uuid()")),
    sa.Column("job_id", sa.Uuid, nullable=False),
    sa.Column("sequence", sa.BigInteger, sa.Identity(always=False), nullable=False),
    sa.Column("step_name", sa.Text, nullable=False),
    sa.Column("step_key", sa.Text),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("retry_count", sa.Integer, nullable=False, server_default=sa.text("0")),  # the attempt, 1-based
    sa.Column("result", JSONB),
    sa.Column("metadata", JSONB, nullable=False, server_default=sa.text("'{}'")),
    sa.Column("error", sa.Text),
    sa.Column("traceback", sa.Text),
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=_NOW),
    sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False, server_default=_NOW),
    sa.Column("processed_at", sa.DateTime(timezone=True)),
    sa.PrimaryKeyConstraint("tenant", "detail_id", name="job_details_pkey"),
    sa.CheckConstraint(f"status IN ({_STATUSES})", name="job_details_status_check"),
    postgresql_with=_UPDATED_OFTEN,
)

sa.Index("job_details_job_idx", job_details.c.tenant, job_details.c.job_id, job_details.c.sequence)

# Jobs that went to another engine than theirs: few, and the doctor asks for them. Neither column changes.
sa.Index(
    "job_details_fallback_idx",
    job_details.c.created_at,
    job_details.c.tenant,
    postgresql_where=job_details.c.step_name == "fallback",
)

job_keys = sa.Table(
    "job_keys",
    metadata,
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("value", sa.LargeBinary),
    sa.Column("counter", sa.BigInteger),
    sa.Column("expires_at", sa.DateTime(timezone=True)),
    sa.PrimaryKeyConstraint("tenant", "key", name="job_keys_pkey"),
    postgresql_with=_UPDATED_OFTEN,
)

sa.Index(
    "job_keys_expiry_idx",
    job_keys.c.expires_at,
    job_keys.c.tenant,
    postgresql_where=job_keys.c.expires_at.is_not(None),
)

# What waits for the parts of a chord; there while it waits. Parts are of any tenant, the row is of the system's.
job_chords = sa.Table(
    "job_chords",
    metadata,
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("chord_id", sa.Text, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.Column("body_type", sa.Text, nullable=False),
    sa.Column("header", sa.LargeBinary),  # how results are nested, if they are
    sa.Column("size", sa.Integer),  # null until the last part is sent
    sa.Column("added", sa.Integer, nullable=False, server_default=sa.text("0")),
    sa.Column("counted", sa.Integer, nullable=False, server_default=sa.text("0")),
    sa.Column("broken_by", sa.Uuid),  # what ended so that a part will never be sent
    sa.Column("lifetime", sa.Interval),
    sa.Column(
        "created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("clock_timestamp()")
    ),
    sa.Column(
        "updated_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("clock_timestamp()")
    ),
    sa.Column("batch_id", sa.Uuid),  # the batch that waits for its body
    sa.PrimaryKeyConstraint("tenant", "chord_id", name="job_chords_pkey"),
    postgresql_with=_UPDATED_OFTEN,
)
sa.Index(
    "job_chords_batch_idx",
    job_chords.c.batch_id,
    job_chords.c.tenant,
    postgresql_where=job_chords.c.batch_id.is_not(None),
)

# Who holds a singleton key. A row outlives its job: whoever takes the key looks at the job's status. Only jobs with a
# key have one, so that jobs without it pay nothing.
job_singletons = sa.Table(
    "job_singletons",
    metadata,
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("job_id", sa.Uuid, nullable=False),
    sa.Column(
        "taken_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("clock_timestamp()")
    ),
    sa.Column("kept_until", sa.DateTime(timezone=True)),  # whatever becomes of the job
    sa.PrimaryKeyConstraint("tenant", "key", name="job_singletons_pkey"),
    postgresql_with=_UPDATED_OFTEN,
)

# A row for each process that waits for results, good for a while. It stays on one node, whatever `jobs` does.
job_awaiters = sa.Table(
    "job_awaiters",
    metadata,
    sa.Column("awaiter_id", sa.Uuid, nullable=False),
    sa.Column("until", sa.DateTime(timezone=True), nullable=False),
    sa.PrimaryKeyConstraint("awaiter_id", name="job_awaiters_pkey"),
    prefixes=["UNLOGGED"],
    info={"is_local": True},
    postgresql_with={"fillfactor": 50},
)

# A row for each who follows the progress of a job, good for a while; on one node, too.
job_followers = sa.Table(
    "job_followers",
    metadata,
    sa.Column("job_id", sa.Uuid, nullable=False),
    sa.Column("follower_id", sa.Uuid, nullable=False),
    sa.Column("until", sa.DateTime(timezone=True), nullable=False),
    sa.PrimaryKeyConstraint("job_id", "follower_id", name="job_followers_pkey"),
    prefixes=["UNLOGGED"],
    info={"is_local": True},
    postgresql_with={"fillfactor": 50},
)
