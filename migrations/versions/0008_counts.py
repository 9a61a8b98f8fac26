"""Counts of jobs by status and by hour, what started and ended in each hour, and the trigger that keeps them.

The jobs that there are when it is made are counted later (0012): a trigger keeps writers waiting for a moment only.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from jobbridge.store.counts.flow_history import NOTE

revision = "0008_counts"
down_revision = "0007_families"
branch_labels = None
depends_on = None

_UPDATED_OFTEN = {
    "fillfactor": 70,
    "autovacuum_vacuum_scale_factor": 0.02,
    "autovacuum_vacuum_threshold": 1000,
}

#: As its owner: who may write jobs need not be granted anything on the counts. So every name is a qualified one, since
#: the caller chooses the search path otherwise.
#:
#: A job that starts for the first time says so (`flow_hour`), and how long it had waited since it was due and sent: a
#: job that is sent again after its end keeps its `created_at`, so then it is the row's last change that counts. One
#: that ends says how long it took. What is final already, or is deleted, is past.
_FUNCTION = """
CREATE FUNCTION public.jobbridge_count_job() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    moment timestamptz;
    since timestamptz;
    flow_hour timestamptz;
    flow_ms bigint;
BEGIN
    IF TG_OP = 'DELETE' THEN
        INSERT INTO public.job_count_changes (tenant, hour, engine_before, status_before)
        VALUES (old.tenant, date_trunc('hour', old.created_at, 'UTC'), old.runner_type, old.status);
        RETURN NULL;
    END IF;
    IF new.status IN ('completed', 'failed', 'cancelled', 'expired', 'skipped') THEN
        IF TG_OP = 'INSERT' OR old.status NOT IN ('completed', 'failed', 'cancelled', 'expired', 'skipped') THEN
            moment := coalesce(new.completed_at, new.updated_at);
            since := new.started_at;
        END IF;
    ELSIF TG_OP = 'UPDATE' AND new.status = 'processing' AND old.started_at IS NULL THEN
        moment := new.started_at;
        since := greatest(old.run_at, CASE WHEN old.runner_type = 'temporal' AND old.attempt = 0 THEN old.created_at
            ELSE old.updated_at END);
    END IF;
    IF moment IS NOT NULL THEN
        flow_hour := date_trunc('hour', moment, 'UTC');
        flow_ms := 1000 * extract(epoch FROM moment - since);
    END IF;
    IF TG_OP = 'INSERT' THEN
        INSERT INTO public.job_count_changes (tenant, hour, engine, status, flow_hour, flow_ms)
        VALUES (new.tenant, date_trunc('hour', new.created_at, 'UTC'), new.runner_type, new.status, flow_hour, flow_ms);
    ELSIF (old.tenant, date_trunc('hour', old.created_at, 'UTC'))
        = (new.tenant, date_trunc('hour', new.created_at, 'UTC')) THEN
        INSERT INTO public.job_count_changes (tenant, hour, engine_before, status_before, engine, status, flow_hour,
            flow_ms)
        VALUES (new.tenant, date_trunc('hour', new.created_at, 'UTC'), old.runner_type, old.status, new.runner_type,
            new.status, flow_hour, flow_ms);
    ELSE
        INSERT INTO public.job_count_changes (tenant, hour, engine_before, status_before, engine, status, flow_hour,
            flow_ms)
        VALUES (old.tenant, date_trunc('hour', old.created_at, 'UTC'), old.runner_type, old.status, NULL, NULL, NULL,
                NULL),
            (new.tenant, date_trunc('hour', new.created_at, 'UTC'), NULL, NULL, new.runner_type, new.status, flow_hour,
                flow_ms);
    END IF;
    RETURN NULL;
END
$$
"""

_TRIGGERS = (
    """
    CREATE TRIGGER jobbridge_count_new AFTER INSERT ON public.jobs
    FOR EACH ROW EXECUTE FUNCTION public.jobbridge_count_job()
    """,
    """
    CREATE TRIGGER jobbridge_count_changed AFTER UPDATE ON public.jobs
    FOR EACH ROW WHEN ((old.status, old.runner_type, old.tenant, old.created_at)
        IS DISTINCT FROM (new.status, new.runner_type, new.tenant, new.created_at))
    EXECUTE FUNCTION public.jobbridge_count_job()
    """,
    """
    CREATE TRIGGER jobbridge_count_gone AFTER DELETE ON public.jobs
    FOR EACH ROW EXECUTE FUNCTION public.jobbridge_count_job()
    """,
)


def upgrade() -> None:
    _create_tables()
    op.execute(_FUNCTION)
    op.execute("REVOKE ALL ON FUNCTION public.jobbridge_count_job() FROM PUBLIC")
    for trigger in _TRIGGERS:
        op.execute(trigger)
    op.execute(NOTE)


def downgrade() -> None:
    for name in ("jobbridge_count_new", "jobbridge_count_changed", "jobbridge_count_gone"):
        op.execute(f"DROP TRIGGER {name} ON public.jobs")
    op.execute("DROP FUNCTION public.jobbridge_count_job()")
    for table in ("job_count_changes", "job_hours", "job_counts", "job_flow", "job_flow_totals"):
        op.drop_table(table)


def _text(name: str, *, nullable: bool = False) -> sa.Column[object]:
    return sa.Column(name, sa.Text, nullable=nullable)


def _hour() -> sa.Column[object]:
    return sa.Column("hour", sa.DateTime(timezone=True), nullable=False)


def _jobs() -> sa.Column[object]:
    return sa.Column("jobs", sa.BigInteger, nullable=False)


def _create_tables() -> None:
    op.create_table(
        "job_counts",
        _text("tenant"),
        _text("engine"),
        _text("status"),
        _jobs(),
        sa.PrimaryKeyConstraint("tenant", "engine", "status", name="job_counts_pkey"),
        postgresql_with=_UPDATED_OFTEN,
    )
    op.create_table(
        "job_hours",
        _text("tenant"),
        _text("status"),
        _hour(),
        _text("engine"),
        _jobs(),
        sa.PrimaryKeyConstraint("tenant", "status", "hour", "engine", name="job_hours_pkey"),
        postgresql_with=_UPDATED_OFTEN,
    )
    op.create_index("job_hours_status_idx", "job_hours", ["status", "hour", "tenant"])
    op.create_table(
        "job_count_changes",
        _text("tenant"),
        _hour(),
        _text("engine_before", nullable=True),
        _text("status_before", nullable=True),
        _text("engine", nullable=True),
        _text("status", nullable=True),
        sa.Column("flow_hour", sa.DateTime(timezone=True)),
        sa.Column("flow_ms", sa.BigInteger),
        postgresql_with={"autovacuum_vacuum_scale_factor": 0.0, "autovacuum_vacuum_threshold": 5000},
    )
    _create_flow()


def _create_flow() -> None:
    cell = ("span", "at", "engine", "status", "bucket")
    op.create_table(
        "job_flow",
        _text("tenant"),
        *_flow_columns(),
        sa.PrimaryKeyConstraint("tenant", *cell, name="job_flow_pkey"),
        postgresql_with=_UPDATED_OFTEN,
    )
    op.create_index("job_flow_age_idx", "job_flow", ["span", "at", "tenant"])
    op.create_table(
        "job_flow_totals",
        *_flow_columns(),
        sa.PrimaryKeyConstraint(*cell, name="job_flow_totals_pkey"),
        postgresql_with=_UPDATED_OFTEN,
    )


def _flow_columns() -> list[sa.Column[object]]:
    return [
        _text("span"),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        _text("engine"),
        _text("status"),
        sa.Column("bucket", sa.SmallInteger, nullable=False),
        _jobs(),
        sa.Column("ms", sa.BigInteger, nullable=False),
    ]
