"""What changes in jobs, for those who watch: a log, who watches, and the trigger that writes the one for the other.

See `jobbridge.store.monitor.change_log` for how it is read.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010_live"
down_revision = "0009_access"
branch_labels = None
depends_on = None

#: Nobody's until somebody watches; a crash may empty it, since its readers begin anew then. The sequence is no part of
#: it, and logged: an id that came twice would look like one that was seen.
_EVENTS = "CREATE UNLOGGED TABLE public.job_events (event_id bigint NOT NULL, job_id uuid NOT NULL)"

#: As its owner, with qualified names: see 0008. A NOTIFY takes a lock of the whole server until the commit is on disk,
#: so only the first change after a quiet moment wakes those who watch.
_FUNCTION = """
CREATE FUNCTION public.jobbridge_tell_job() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    is_anyone_asleep boolean;
BEGIN
    SELECT bool_or(is_asleep) INTO is_anyone_asleep FROM public.job_watchers WHERE until > now();
    IF is_anyone_asleep IS NOT NULL THEN
        INSERT INTO public.job_events (event_id, job_id)
        VALUES (nextval('public.job_events_event_id_seq'), new.job_id);
        IF is_anyone_asleep THEN
            PERFORM pg_notify('jobbridge_events', '');
        END IF;
    END IF;
    RETURN NULL;
END
$$
"""

_TRIGGERS = (
    """
    CREATE TRIGGER jobbridge_tell_new AFTER INSERT ON public.jobs
    FOR EACH ROW EXECUTE FUNCTION public.jobbridge_tell_job()
    """,
    """
    CREATE TRIGGER jobbridge_tell_changed AFTER UPDATE ON public.jobs
    FOR EACH ROW WHEN ((old.status, old.runner_type, old.attempt, old.queue, old.progress, old.progress_message)
        IS DISTINCT FROM (new.status, new.runner_type, new.attempt, new.queue, new.progress, new.progress_message))
    EXECUTE FUNCTION public.jobbridge_tell_job()
    """,
)


def upgrade() -> None:
    op.create_table(
        "job_watchers",
        sa.Column("watcher_id", sa.Uuid, nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=False),
        sa.Column("is_asleep", sa.Boolean, nullable=False, server_default=sa.text("false")),
        sa.PrimaryKeyConstraint("watcher_id", name="job_watchers_pkey"),
        postgresql_with={"fillfactor": 50},
    )
    op.execute("CREATE SEQUENCE public.job_events_event_id_seq")
    op.execute(_EVENTS)
    op.execute("ALTER TABLE public.job_events ADD CONSTRAINT job_events_pkey PRIMARY KEY (event_id)")
    op.execute(
        "ALTER TABLE public.job_events SET (autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 20000)"
    )
    op.execute(_FUNCTION)
    op.execute("REVOKE ALL ON FUNCTION public.jobbridge_tell_job() FROM PUBLIC")
    for trigger in _TRIGGERS:
        op.execute(trigger)


def downgrade() -> None:
    for name in ("jobbridge_tell_new", "jobbridge_tell_changed"):
        op.execute(f"DROP TRIGGER {name} ON public.jobs")
    op.execute("DROP FUNCTION public.jobbridge_tell_job()")
    op.drop_table("job_events")
    op.execute("DROP SEQUENCE public.job_events_event_id_seq")
    op.drop_table("job_watchers")
