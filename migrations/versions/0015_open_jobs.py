"""Open jobs, and those that ended otherwise than well, have an index (decision 0017).

`completed_at` is null while a job is open, and `unsuccessful` while it is open or completed well; both change at a
job's end and no sooner, so that updates before stay in place. A trigger sets both right after whoever does not: the
release before this one, and whoever writes jobs by hand.

One key on the id: `(job_id, tenant)` finds a job by its id with or without its tenant, so no index repeats it. An
engine's id is indexed where it is not the job's own.
"""

from __future__ import annotations

from alembic import op

from jobbridge.postgres.caller_connection import DriverConnection
from jobbridge.store.jobs.ends import mark_ends
from jobbridge.store.schema.online import create_indexes, drop_indexes

revision = "0015_open_jobs"
down_revision = "0014_relatives"
branch_labels = None
depends_on = None
serves_since = "0014_relatives"

_FINAL = "('completed', 'failed', 'cancelled', 'expired', 'skipped')"
_UNSUCCESSFUL = "('failed', 'cancelled', 'expired', 'skipped')"

_FUNCTION = f"""
CREATE OR REPLACE FUNCTION public.jobbridge_mark_end() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE public.jobs
    SET completed_at = CASE WHEN status IN {_FINAL} THEN coalesce(completed_at, updated_at) END,
        unsuccessful = CASE WHEN status IN {_UNSUCCESSFUL} THEN status END
    WHERE tenant = new.tenant AND job_id = new.job_id;
    RETURN NULL;
END
$$
"""
#: AFTER: what runs before an update locks the row first, which every update would pay for.
_TRIGGER = f"""
CREATE OR REPLACE TRIGGER jobbridge_mark_end AFTER INSERT OR UPDATE ON public.jobs
FOR EACH ROW WHEN (
    (new.completed_at IS NULL) = (new.status IN {_FINAL})
    OR new.unsuccessful IS DISTINCT FROM CASE WHEN new.status IN {_UNSUCCESSFUL} THEN new.status END
)
EXECUTE FUNCTION public.jobbridge_mark_end()
"""

_NEW = {
    "jobs_open_idx": "(created_at, job_id, tenant) WHERE completed_at IS NULL",
    "jobs_unsuccessful_idx": "(unsuccessful, created_at DESC, job_id DESC, tenant) WHERE unsuccessful IS NOT NULL",
    "jobs_tenant_unsuccessful_idx": (
        "(tenant, unsuccessful, created_at DESC, job_id DESC) WHERE unsuccessful IS NOT NULL"
    ),
    "jobs_unsuccessful_ended_idx": "(completed_at, tenant, unsuccessful) WHERE unsuccessful IS NOT NULL",
    "jobs_engines_id_idx": "(external_id, tenant) WHERE external_id <> job_id::text",
}
_OLD = {
    "jobs_job_id_idx": "(job_id, tenant)",
    "jobs_external_id_idx": "(external_id, tenant) WHERE external_id IS NOT NULL",
}

_KEY = """
SELECT attname::text FROM pg_constraint JOIN pg_attribute ON attrelid = conrelid AND attnum = conkey[1]
WHERE conrelid = 'public.jobs'::regclass AND contype = 'p'
"""
#: What others made, and holds the key that it names.
_IS_REFERRED_TO = """
SELECT EXISTS (SELECT FROM pg_constraint WHERE confrelid = 'public.jobs'::regclass AND contype = 'f')
"""


def upgrade() -> None:
    """While everybody writes: each step can be taken again."""
    driver = _driver()
    with op.get_context().autocommit_block():
        driver.execute("ALTER TABLE public.jobs ADD COLUMN IF NOT EXISTS unsuccessful text")
        driver.execute(_FUNCTION)
        driver.execute(_TRIGGER)
        mark_ends(driver)
        create_indexes(driver, "jobs", _statements(_NEW))
        is_key_new = _set_key(driver, "job_id", "tenant")
        drop_indexes(driver, [name for name in _OLD if is_key_new or name != "jobs_job_id_idx"])


def downgrade() -> None:
    driver = _driver()
    with op.get_context().autocommit_block():
        create_indexes(driver, "jobs", _statements(_OLD))
        _set_key(driver, "tenant", "job_id")
        drop_indexes(driver, list(_NEW))
        driver.execute("DROP TRIGGER IF EXISTS jobbridge_mark_end ON public.jobs")
        driver.execute("DROP FUNCTION IF EXISTS public.jobbridge_mark_end()")
        driver.execute("ALTER TABLE public.jobs DROP COLUMN IF EXISTS unsuccessful")


def _set_key(driver: DriverConnection, *columns: str) -> bool:
    """Make these columns, in this order, the primary key; whether it is. Its index is made first, so nobody waits.

    Where somebody's foreign keys refer to jobs it stays as it is, which costs a second index.
    """
    if driver.execute(_KEY).fetchall() == [(columns[0],)]:
        return True
    if driver.execute(_IS_REFERRED_TO).fetchall() == [(True,)]:
        return False
    unique = f"CREATE UNIQUE INDEX CONCURRENTLY jobs_key ON public.jobs ({', '.join(columns)})"
    create_indexes(driver, "jobs", {"jobs_key": unique})
    with driver.transaction():
        driver.execute("ALTER TABLE public.jobs DROP CONSTRAINT jobs_pkey")
        driver.execute("ALTER TABLE public.jobs ADD CONSTRAINT jobs_pkey PRIMARY KEY USING INDEX jobs_key")
    return True


def _statements(indexes: dict[str, str]) -> dict[str, str]:
    return {name: f"CREATE INDEX CONCURRENTLY {name} ON public.jobs {what}" for name, what in indexes.items()}


def _driver() -> DriverConnection:
    driver: DriverConnection = op.get_bind().connection.driver_connection  # type: ignore[assignment]  # psycopg's
    return driver
