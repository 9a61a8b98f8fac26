"""Who waits for results, and the triggers that tell them which jobs have ended.

See `jobbridge.app.result_listener`. A NOTIFY takes a lock of the whole server until the commit is through, so nothing
is told while nobody waits; and the triggers keep quiet when the queue of notifications fills, since a transaction that
finds it full fails.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0025_awaited"
down_revision = "0020_enqueue"
branch_labels = None
depends_on = None
serves_since = "0014_relatives"  # a table and two triggers that nobody has to know

#: As its owner, with qualified names: see 0008.
_FUNCTION = """
CREATE FUNCTION public.jobbridge_tell_{name}() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM public.job_awaiters WHERE until > now()) AND pg_notification_queue_usage() < 0.5 THEN
        PERFORM pg_notify('jobbridge_results', {told});
    END IF;
    RETURN NULL;
END
$$
"""
_TRIGGER = """
CREATE TRIGGER jobbridge_tell_{name} AFTER INSERT OR UPDATE OF {column} ON public.{table}
FOR EACH ROW WHEN (new.{column} IS NOT NULL) EXECUTE FUNCTION public.jobbridge_tell_{name}()
"""
_TOLD = (
    {"name": "ended", "table": "jobs", "column": "completed_at", "told": "new.job_id::text"},
    {"name": "stored", "table": "job_keys", "column": "value", "told": "left(new.key, 1000)"},
)

#: Whose names are put together above.
makes = [f"public.jobbridge_tell_{told['name']}" for told in _TOLD]


def upgrade() -> None:
    op.create_table(
        "job_awaiters",
        sa.Column("awaiter_id", sa.Uuid, nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("awaiter_id", name="job_awaiters_pkey"),
        prefixes=["UNLOGGED"],
        postgresql_with={"fillfactor": 50},
    )
    for told in _TOLD:
        op.execute(_FUNCTION.format(**told))
        op.execute("REVOKE ALL ON FUNCTION public.jobbridge_tell_{name}() FROM PUBLIC".format(**told))
        op.execute(_TRIGGER.format(**told))


def downgrade() -> None:
    for told in _TOLD:
        op.execute("DROP TRIGGER jobbridge_tell_{name} ON public.{table}".format(**told))
        op.execute("DROP FUNCTION public.jobbridge_tell_{name}()".format(**told))
    op.drop_table("job_awaiters")
