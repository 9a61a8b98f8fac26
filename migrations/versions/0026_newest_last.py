"""The newest jobs are at the right end of their indexes, and a row that is made is looked at for less.

An index in descending order takes each new row at its left end: its pages split in the middle, each half is written to
the log, and they stay half empty. In ascending order they are filled, and a split writes next to nothing; who wants the
newest first reads backward. That is 130 bytes of log for each job that is sent.

Postgres reads the condition of a trigger anew in each statement. That of `jobbridge_mark_end` took as long as the row's
own key, so what is inserted is told by a short one, and the function sees to the rest.
"""

from __future__ import annotations

from alembic import op

from jobbridge.postgres.caller_connection import DriverConnection
from jobbridge.store.schema.online import replace_indexes

revision = "0026_newest_last"
down_revision = "0025_awaited"
branch_labels = None
depends_on = None
serves_since = "0014_relatives"  # the same keys, read from the other side; triggers that nobody has to know

_ASCENDING = {
    "jobs_newest_idx": "(created_at, job_id, tenant DESC)",
    "jobs_tenant_newest_idx": "(tenant, created_at, job_id)",
}
_DESCENDING = {
    "jobs_newest_idx": "(created_at DESC, job_id DESC, tenant)",
    "jobs_tenant_newest_idx": "(tenant, created_at DESC, job_id DESC)",
}

_FINAL = "('completed', 'failed', 'cancelled', 'expired', 'skipped')"
_UNSUCCESSFUL = "('failed', 'cancelled', 'expired', 'skipped')"
_IS_WRONG = f"""(new.completed_at IS NULL) = (new.status IN {_FINAL})
    OR new.unsuccessful IS DISTINCT FROM CASE WHEN new.status IN {_UNSUCCESSFUL} THEN new.status END"""
_UPDATE = f"""UPDATE public.jobs
    SET completed_at = CASE WHEN status IN {_FINAL} THEN coalesce(completed_at, updated_at) END,
        unsuccessful = CASE WHEN status IN {_UNSUCCESSFUL} THEN status END
    WHERE tenant = new.tenant AND job_id = new.job_id;"""
#: As 0015 has it.
_FUNCTION_BEFORE = f"""
CREATE OR REPLACE FUNCTION public.jobbridge_mark_end() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    {_UPDATE}
    RETURN NULL;
END
$$
"""
_FUNCTION = f"""
CREATE OR REPLACE FUNCTION public.jobbridge_mark_end() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF ({_IS_WRONG}) THEN
        {_UPDATE}
    END IF;
    RETURN NULL;
END
$$
"""
_TRIGGER = f"""
CREATE OR REPLACE TRIGGER jobbridge_mark_end AFTER {{events}} ON public.jobs
FOR EACH ROW WHEN ({_IS_WRONG})
EXECUTE FUNCTION public.jobbridge_mark_end()
"""
_TRIGGER_OF_NEW = """
CREATE OR REPLACE TRIGGER jobbridge_mark_new AFTER INSERT ON public.jobs
FOR EACH ROW WHEN (new.status <> 'queued' OR new.completed_at IS NOT NULL OR new.unsuccessful IS NOT NULL)
EXECUTE FUNCTION public.jobbridge_mark_end()
"""


def upgrade() -> None:
    """While everybody writes: each step can be taken again."""
    driver = _driver()
    with op.get_context().autocommit_block():
        driver.execute(_FUNCTION)
        driver.execute(_TRIGGER_OF_NEW)
        driver.execute(_TRIGGER.format(events="UPDATE").encode())
        replace_indexes(driver, "jobs", _ASCENDING)


def downgrade() -> None:
    driver = _driver()
    with op.get_context().autocommit_block():
        replace_indexes(driver, "jobs", _DESCENDING)
        driver.execute(_TRIGGER.format(events="INSERT OR UPDATE").encode())
        driver.execute("DROP TRIGGER IF EXISTS jobbridge_mark_new ON public.jobs")
        driver.execute(_FUNCTION_BEFORE)


def _driver() -> DriverConnection:
    driver: DriverConnection = op.get_bind().connection.driver_connection  # type: ignore[assignment]  # psycopg's
    return driver
