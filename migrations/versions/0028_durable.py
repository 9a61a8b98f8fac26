"""Durable jobs: the status `waiting`, what jobs wait for, events, and called jobs (decision 0032).

`jobbridge.send_event` is the one way by which an event comes in. Event and wait take the same lock, so whichever comes
second sees the first. The end of a called job counts at its caller, by a trigger that fires for called jobs alone.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from jobbridge.postgres.caller_connection import DriverConnection
from jobbridge.store.schema.online import create_indexes

revision = "0028_durable"
down_revision = "0027_enqueue_rules"
branch_labels = None
depends_on = None
serves_since = "0014_relatives"  # a status that only what asks for it has, a column, tables and functions

_STATUSES = (
    "pending", "queued", "scheduled", "processing", "retrying", "completed", "failed", "cancelled", "expired",
    "skipped",
)  # fmt: skip
_NOW = sa.text("clock_timestamp()")
_UPDATED_OFTEN = {
    "fillfactor": 70,
    "autovacuum_vacuum_scale_factor": 0.02,
    "autovacuum_vacuum_threshold": 1000,
}
_CALLED = "(tenant, called_by) WHERE called_by IS NOT NULL AND completed_at IS NULL"

#: Sends a job on that waits: its message is due, or the relay is told. A job that does not wait (any more) stays as it
#: is. Broker and `jobs` are not joined: the message is found by the task's id.
_WAKE = """
CREATE FUNCTION jobbridge.wake_job(owner public.jobs.tenant%TYPE, waiting_id uuid) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    waits record;
    target text;
    is_due boolean;
BEGIN
    SELECT job.runner_type, job.task_id, job.run_at INTO waits
    FROM public.jobs AS job
    WHERE job.tenant = owner AND job.job_id = waiting_id AND job.status = 'waiting'
    FOR UPDATE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    UPDATE public.jobs AS job
    SET status = CASE job.runner_type WHEN 'temporal' THEN 'pending' ELSE 'queued' END,
        run_at = NULL,
        undelivered_since = CASE job.runner_type WHEN 'temporal' THEN clock_timestamp() END,
        relayed_at = NULL,
        updated_at = clock_timestamp()
    WHERE job.tenant = owner AND job.job_id = waiting_id;
    IF waits.runner_type = 'temporal' THEN
        PERFORM pg_notify('jobbridge_relay', '');
        RETURN true;
    END IF;
    is_due := coalesce(waits.run_at <= clock_timestamp(), false);
    FOR target IN
        UPDATE jobbridge_broker.messages AS message
        SET due_at = NULL
        WHERE message.correlation_id = waits.task_id AND message.leased_by IS NULL AND message.due_at IS NOT NULL
        RETURNING message.queue
    LOOP
        is_due := true;
        PERFORM pg_notify('jb_' || left(encode(sha256(convert_to(target, 'UTF8')), 'hex'), 40), '');
    END LOOP;
    -- A role that sees one tenant's rows would change nothing here, and the job would wait for ever.
    IF NOT is_due AND row_security_active('jobbridge_broker.messages') THEN
        RAISE EXCEPTION 'The role % does not see the message of the job %, and cannot wake it.',
            current_user, waiting_id
            USING ERRCODE = '42501', HINT = 'Send the event as a role that serves all tenants.';
    END IF;
    RETURN true;
END
$$
"""

_SEND_EVENT = """
CREATE FUNCTION jobbridge.send_event(
    name text,
    payload jsonb DEFAULT NULL,
    job_id uuid DEFAULT NULL,
    key text DEFAULT NULL,
    tenant text DEFAULT NULL,
    once text DEFAULT NULL,
    sent_by text DEFAULT NULL
) RETURNS text LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    owner public.jobs.tenant%TYPE;
    new_id uuid := gen_random_uuid();
    awaiting record;
BEGIN
    IF coalesce(send_event.name, '') = '' OR length(send_event.name) > 255 THEN
        RAISE EXCEPTION 'The event''s name is %.', coalesce(quote_literal(left(send_event.name, 60)), 'NULL')
            USING ERRCODE = '22023', HINT = 'Name it by 1 to 255 characters, as the job does that waits for it.';
    END IF;
    IF (send_event.job_id IS NULL) = (send_event.key IS NULL) THEN
        RAISE EXCEPTION 'The event % names % a job and a key.', quote_literal(left(send_event.name, 60)),
            CASE WHEN send_event.key IS NULL THEN 'neither' ELSE 'both' END
            USING ERRCODE = '22023', HINT = 'Pass job_id, or key.';
    END IF;
    IF send_event.tenant IS NOT NULL THEN
        owner := jobbridge.tenant_named(send_event.tenant);
    ELSIF send_event.job_id IS NOT NULL THEN
        SELECT job.tenant INTO owner FROM public.jobs AS job WHERE job.job_id = send_event.job_id LIMIT 1;
    END IF;
    owner := coalesce(owner::text, '00000000-0000-0000-0000-000000000000');
    PERFORM pg_advisory_xact_lock(hashtextextended(
        'jobbridge event ' || owner::text || ' ' || coalesce(send_event.job_id::text, 'key ' || send_event.key) || ' '
        || send_event.name, 0
    ));
    INSERT INTO public.job_inbox AS event (tenant, event_id, job_id, key, name, payload, once, sent_by)
    VALUES (
        owner, new_id, send_event.job_id, send_event.key, send_event.name, send_event.payload, send_event.once,
        send_event.sent_by
    )
    ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        RETURN 'repeated';
    END IF;
    -- Of several that wait for the same key, the one that waits for the longest time.
    FOR awaiting IN
        SELECT wait.job_id, wait.step
        FROM public.job_waits AS wait
        WHERE wait.tenant = owner AND wait.kind = 'event' AND wait.name = send_event.name
            AND (wait.job_id = send_event.job_id OR wait.key = send_event.key)
        ORDER BY wait.created_at
        FOR UPDATE
    LOOP
        DELETE FROM public.job_waits AS wait WHERE wait.tenant = owner AND wait.job_id = awaiting.job_id;
        -- The job may have ended meanwhile, or have waited for long enough.
        UPDATE public.job_details AS step
        SET status = 'completed', result = send_event.payload, processed_at = clock_timestamp(),
            updated_at = clock_timestamp(),
            metadata = step.metadata || jsonb_strip_nulls(jsonb_build_object(
                'event', new_id, 'sent_by', send_event.sent_by, 'key', send_event.key
            ))
        WHERE step.tenant = owner AND step.detail_id = awaiting.step AND step.status = 'waiting';
        CONTINUE WHEN NOT FOUND;
        UPDATE public.job_inbox AS event
        SET consumed_at = clock_timestamp(), consumed_by = awaiting.job_id
        WHERE event.tenant = owner AND event.event_id = new_id;
        PERFORM jobbridge.wake_job(owner, awaiting.job_id);
        RETURN 'delivered';
    END LOOP;
    RETURN 'kept';
END
$$
"""

_COMMENT = """
COMMENT ON FUNCTION jobbridge.send_event IS
'Sends an event to a job, or to whoever waits for the key: delivered, kept until a job waits for it, or repeated.'
"""

#: As its owner, with qualified names: see 0008.
_ENDED = """
CREATE FUNCTION public.jobbridge_called_ended() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    left_open integer;
BEGIN
    PERFORM pg_advisory_xact_lock(
        hashtextextended('jobbridge calls ' || new.tenant::text || ' ' || new.called_by::text, 0)
    );
    UPDATE public.job_waits AS wait
    SET pending = wait.pending - 1
    WHERE wait.tenant = new.tenant AND wait.job_id = new.called_by AND wait.kind = 'call'
    RETURNING wait.pending INTO left_open;
    IF left_open <= 0 THEN
        DELETE FROM public.job_waits AS wait WHERE wait.tenant = new.tenant AND wait.job_id = new.called_by;
        PERFORM jobbridge.wake_job(new.tenant, new.called_by);
    END IF;
    RETURN NULL;
END
$$
"""
_TRIGGER = """
CREATE TRIGGER jobbridge_called_ended AFTER UPDATE OF completed_at ON public.jobs
FOR EACH ROW WHEN (new.called_by IS NOT NULL AND new.completed_at IS NOT NULL AND old.completed_at IS NULL)
EXECUTE FUNCTION public.jobbridge_called_ended()
"""


def upgrade() -> None:
    op.create_table(
        "job_waits",
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("job_id", sa.Uuid, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("key", sa.Text),
        sa.Column("until", sa.DateTime(timezone=True)),
        sa.Column("pending", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("step", sa.Uuid, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=_NOW),
        sa.PrimaryKeyConstraint("tenant", "job_id", name="job_waits_pkey"),
        if_not_exists=True,
        postgresql_with=_UPDATED_OFTEN,
    )
    op.create_index(
        "job_waits_key_idx",
        "job_waits",
        ["tenant", "name", "key", "created_at"],
        postgresql_where=sa.text("key IS NOT NULL"),
        if_not_exists=True,
    )
    op.create_table(
        "job_inbox",
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("event_id", sa.Uuid, nullable=False),
        sa.Column("job_id", sa.Uuid),
        sa.Column("key", sa.Text),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("payload", sa.dialects.postgresql.JSONB),
        sa.Column("once", sa.Text),
        sa.Column("sent_by", sa.Text),
        sa.Column("sent_at", sa.DateTime(timezone=True), nullable=False, server_default=_NOW),
        sa.Column("consumed_at", sa.DateTime(timezone=True)),
        sa.Column("consumed_by", sa.Uuid),
        sa.PrimaryKeyConstraint("tenant", "event_id", name="job_inbox_pkey"),
        if_not_exists=True,
        postgresql_with=_UPDATED_OFTEN,
    )
    for name, columns, where, is_unique in (
        ("job_inbox_once_key", ["tenant", "name", "once"], "once IS NOT NULL", True),
        ("job_inbox_job_idx", ["tenant", "job_id", "name", "sent_at"], "job_id IS NOT NULL", False),
        (
            "job_inbox_key_idx",
            ["tenant", "key", "name", "sent_at"],
            "key IS NOT NULL AND consumed_at IS NULL",
            False,
        ),
        ("job_inbox_consumer_idx", ["tenant", "consumed_by"], "consumed_by IS NOT NULL", False),
        ("job_inbox_kept_idx", ["sent_at", "tenant"], "consumed_at IS NULL", False),
    ):
        op.create_index(
            name, "job_inbox", columns, postgresql_where=sa.text(where), unique=is_unique, if_not_exists=True
        )
    op.execute("ALTER TABLE public.jobs ADD COLUMN IF NOT EXISTS called_by uuid")
    for table in ("jobs", "job_details"):
        _allow(table, (*_STATUSES[:5], "waiting", *_STATUSES[5:]))
    for statement in (_WAKE, _SEND_EVENT, _COMMENT, _ENDED):
        op.execute(statement.replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION").replace(":", "\\:"))
    op.execute("REVOKE ALL ON FUNCTION public.jobbridge_called_ended() FROM PUBLIC")
    op.execute(_TRIGGER.replace("CREATE TRIGGER", "CREATE OR REPLACE TRIGGER"))
    driver: DriverConnection = op.get_bind().connection.driver_connection  # type: ignore[assignment]  # psycopg's
    with op.get_context().autocommit_block():
        for table in ("jobs", "job_details"):
            driver.execute(f"ALTER TABLE public.{table} VALIDATE CONSTRAINT {table}_status_check")
        create_indexes(
            driver,
            "jobs",
            {"jobs_called_idx": f"CREATE INDEX CONCURRENTLY jobs_called_idx ON public.jobs {_CALLED}"},
        )


def downgrade() -> None:
    op.drop_index("jobs_called_idx", table_name="jobs")
    op.execute("DROP TRIGGER jobbridge_called_ended ON public.jobs")
    op.execute("DROP FUNCTION public.jobbridge_called_ended()")
    op.execute("DROP FUNCTION jobbridge.send_event")
    op.execute("DROP FUNCTION jobbridge.wake_job")
    # What the release before does not know: it goes on when it is sent again.
    op.execute("UPDATE public.jobs SET status = 'queued' WHERE status = 'waiting'")
    op.execute("UPDATE public.job_details SET status = 'failed' WHERE status = 'waiting'")
    for table in ("jobs", "job_details"):
        _allow(table, _STATUSES)
        op.execute(f"ALTER TABLE public.{table} VALIDATE CONSTRAINT {table}_status_check")
    op.drop_column("jobs", "called_by")
    op.drop_table("job_inbox")
    op.drop_table("job_waits")


def _allow(table: str, statuses: tuple[str, ...]) -> None:
    """Have a table take these statuses alone; that the rows which are there do is looked at while all go on."""
    listed = ", ".join(f"'{status}'" for status in statuses)
    op.execute(f"ALTER TABLE public.{table} DROP CONSTRAINT IF EXISTS {table}_status_check")
    op.execute(
        f"ALTER TABLE public.{table} ADD CONSTRAINT {table}_status_check CHECK (status IN ({listed})) NOT VALID"
    )
