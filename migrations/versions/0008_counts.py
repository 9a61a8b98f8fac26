"""Counts of jobs by status and by hour, and the trigger that keeps them.

The jobs that there are when it is made are counted while nobody writes one: some two seconds for a million.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

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
_FUNCTION = """
CREATE FUNCTION public.jobbridge_count_job() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO public.job_count_changes (tenant, hour, engine, status)
        VALUES (new.tenant, date_trunc('hour', new.created_at, 'UTC'), new.runner_type, new.status);
    ELSIF TG_OP = 'DELETE' THEN
        INSERT INTO public.job_count_changes (tenant, hour, engine_before, status_before)
        VALUES (old.tenant, date_trunc('hour', old.created_at, 'UTC'), old.runner_type, old.status);
    ELSIF (old.tenant, date_trunc('hour', old.created_at, 'UTC'))
        = (new.tenant, date_trunc('hour', new.created_at, 'UTC')) THEN
        INSERT INTO public.job_count_changes (tenant, hour, engine_before, status_before, engine, status)
        VALUES (new.tenant, date_trunc('hour', new.created_at, 'UTC'), old.runner_type, old.status, new.runner_type,
            new.status);
    ELSE
        INSERT INTO public.job_count_changes (tenant, hour, engine_before, status_before, engine, status)
        VALUES (old.tenant, date_trunc('hour', old.created_at, 'UTC'), old.runner_type, old.status, NULL, NULL),
            (new.tenant, date_trunc('hour', new.created_at, 'UTC'), NULL, NULL, new.runner_type, new.status);
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

_COUNT_HOURS = """
INSERT INTO public.job_hours (tenant, status, hour, engine, jobs)
SELECT concat(tenant), status, date_trunc('hour', created_at, 'UTC'), runner_type, count(*)
FROM public.jobs
GROUP BY 1, 2, 3, 4
"""

_COUNT_ALL = """
INSERT INTO public.job_counts (tenant, engine, status, jobs)
SELECT tenant, engine, status, sum(jobs) FROM public.job_hours GROUP BY 1, 2, 3
"""


def upgrade() -> None:
    _create_tables()
    op.execute(_FUNCTION)
    op.execute("REVOKE ALL ON FUNCTION public.jobbridge_count_job() FROM PUBLIC")
    for trigger in _TRIGGERS:
        op.execute(trigger)  # from here on nobody else writes jobs until the end of this transaction
    op.execute(_COUNT_HOURS)
    op.execute(_COUNT_ALL)


def downgrade() -> None:
    for name in ("jobbridge_count_new", "jobbridge_count_changed", "jobbridge_count_gone"):
        op.execute(f"DROP TRIGGER {name} ON public.jobs")
    op.execute("DROP FUNCTION public.jobbridge_count_job()")
    for table in ("job_count_changes", "job_hours", "job_counts"):
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
        postgresql_with={"autovacuum_vacuum_scale_factor": 0.0, "autovacuum_vacuum_threshold": 5000},
    )
