"""Rules across the fleet: what holds a job, and the triggers that let it go (decision 0033)."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0029_rules"
down_revision = "0028_durable"
branch_labels = None
depends_on = None
serves_since = "0014_relatives"  # nullable columns, tables and triggers that nobody has to know

_NOW = sa.text("clock_timestamp()")
_CHURNING = {
    "fillfactor": 70,
    "autovacuum_vacuum_scale_factor": 0.02,
    "autovacuum_vacuum_threshold": 1000,
}

#: All as their owner, with qualified names: see 0008.
_HEAD = "LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp"

#: A hold begins to wait, or is gone: its rule is looked at when the transaction commits, once, whatever it did.
_NOTE = f"""
CREATE FUNCTION public.jobbridge_note_hold() RETURNS trigger
{_HEAD} AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        INSERT INTO public.job_rule_changes (transaction, rank, rule)
        VALUES (pg_current_xact_id()::text::bigint, old.rank, old.rule)
        ON CONFLICT DO NOTHING;
    ELSE
        INSERT INTO public.job_rule_changes (transaction, rank, rule, kind, allowed, period, is_fair)
        VALUES (pg_current_xact_id()::text::bigint, new.rank, new.rule, new.kind, new.allowed, new.period, new.is_fair)
        ON CONFLICT (transaction, rank, rule) DO UPDATE
        SET kind = excluded.kind, allowed = excluded.allowed, period = excluded.period, is_fair = excluded.is_fair;
    END IF;
    RETURN NULL;
END
$$
"""

#: At the commit, so that rules are locked for no longer than that takes; each transaction locks them in one order. Who
#: ends jobs does not wait long for locks of rows; those of rules are had by all in turn. Plans are
#: made while the tables are empty, and kept: each must follow an index.
_SETTLE_ALL = f"""
CREATE FUNCTION public.jobbridge_settle_rules() RETURNS trigger
{_HEAD} SET lock_timeout = '10s'
    SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off AS $$
DECLARE
    change public.job_rule_changes;
BEGIN
    LOOP
        DELETE FROM public.job_rule_changes AS done
        USING (
            SELECT transaction, rank, rule FROM public.job_rule_changes
            WHERE transaction = pg_current_xact_id()::text::bigint
            ORDER BY rank, rule
            LIMIT 1
        ) AS first
        WHERE (done.transaction, done.rank, done.rule) = (first.transaction, first.rank, first.rule)
        RETURNING done.* INTO change;
        EXIT WHEN NOT FOUND;
        PERFORM public.jobbridge_settle_rule(change);
    END LOOP;
    RETURN NULL;
END
$$
"""

#: Who comes next is asked by a statement that begins after the lock was had: it sees what others committed. The row is
#: written even if nothing changes: a transaction with an older snapshot fails then, and does not overlook who waits.
#: A fair rule gives each tenant's jobs places in virtual time: the next is as far behind the one before as the tenant's
#: weight is small, and none begins before what is being served (start-time fair queueing, Goyal 1996).
_SETTLE = f"""
CREATE FUNCTION public.jobbridge_settle_rule(change public.job_rule_changes) RETURNS void
{_HEAD} AS $$
DECLARE
    known public.job_limits;
    hold public.job_holds;
    free integer;
    slot timestamptz;
    start double precision;
BEGIN
    IF change.allowed IS NULL THEN
        UPDATE public.job_limits SET updated_at = clock_timestamp() WHERE rule = change.rule RETURNING * INTO known;
        IF NOT FOUND THEN
            RETURN;
        END IF;
    ELSE
        INSERT INTO public.job_limits AS own (rule, rank, kind, allowed, period, is_fair)
        VALUES (change.rule, change.rank, change.kind, change.allowed, change.period, coalesce(change.is_fair, false))
        ON CONFLICT (rule) DO UPDATE SET
            allowed = CASE WHEN own.is_set THEN own.allowed ELSE excluded.allowed END,
            period = CASE WHEN own.is_set THEN own.period ELSE excluded.period END,
            is_fair = CASE WHEN own.is_set THEN own.is_fair ELSE excluded.is_fair END,
            updated_at = clock_timestamp()
        RETURNING * INTO known;
    END IF;
    IF known.is_fair THEN
        FOR hold IN
            SELECT * FROM public.job_holds AS new
            WHERE new.rule = known.rule AND new.state = 'waiting' AND new.is_fair AND new.place IS NULL
            ORDER BY new.sequence
        LOOP
            SELECT last.place INTO start
            FROM public.job_holds AS last
            WHERE last.rule = known.rule AND last.tenant = hold.tenant AND last.state = 'waiting' AND last.is_fair
                AND last.place IS NOT NULL
            ORDER BY last.place DESC
            LIMIT 1;
            start := start + 1 / greatest(coalesce((known.weights ->> hold.tenant::text)::double precision, 1), 0.001);
            UPDATE public.job_holds AS placed
            SET place = greatest(known.passed, start)
            WHERE placed.job_id = hold.job_id AND placed.tenant = hold.tenant AND placed.rule = hold.rule;
        END LOOP;
    END IF;
    IF known.kind = 'rate_limit' THEN
        free := CASE WHEN known.allowed > 0 THEN 1000000000 ELSE 0 END;
    ELSE
        SELECT known.allowed - count(*) INTO free
        FROM public.job_holds AS running
        WHERE running.rule = known.rule AND running.state = 'running';
    END IF;
    WHILE free > 0 LOOP
        SELECT * INTO hold
        FROM public.job_holds AS next
        WHERE next.rule = known.rule AND next.state = 'waiting'
        ORDER BY next.priority DESC, next.place, next.sequence
        LIMIT 1
        FOR UPDATE SKIP LOCKED;
        EXIT WHEN NOT FOUND;
        slot := CASE WHEN known.kind = 'rate_limit' THEN greatest(known.next_at, clock_timestamp()) END;
        IF public.jobbridge_admit(hold, slot) THEN
            free := free - 1;
            known.next_at := slot + known.period / known.allowed;
            IF known.is_fair THEN
                known.passed := greatest(known.passed, hold.place);
            END IF;
        END IF;
    END LOOP;
    UPDATE public.job_limits AS own
    SET passed = known.passed, next_at = known.next_at
    WHERE own.rule = known.rule AND (own.passed, own.next_at) IS DISTINCT FROM (known.passed, known.next_at);
END
$$
"""

#: Past this rule; past the last one its message is let go. Nobody is waited for: who holds the message or the row ends
#: the job, as a rule, and deletes the hold. A service looks again at what was left (`store.rules.upkeep`).
_ADMIT = f"""
CREATE FUNCTION public.jobbridge_admit(hold public.job_holds, slot timestamptz) RETURNS boolean
{_HEAD} AS $$
DECLARE
    later public.job_holds;
    messages bigint[];
    queues text[];
    is_pending boolean;
    begins timestamptz := greatest(slot, hold.slot_at);
BEGIN
    SELECT * INTO later
    FROM public.job_holds AS other
    WHERE other.job_id = hold.job_id AND other.tenant = hold.tenant AND other.state = 'later'
    ORDER BY other.rank, other.rule
    LIMIT 1;
    IF FOUND THEN
        UPDATE public.job_holds AS own SET state = 'running', slot_at = begins, admitted_at = clock_timestamp()
        WHERE own.job_id = hold.job_id AND own.tenant = hold.tenant AND own.rule = hold.rule;
        UPDATE public.job_holds AS own SET state = 'waiting', slot_at = begins
        WHERE own.job_id = hold.job_id AND own.tenant = hold.tenant AND own.rule = later.rule;
        RETURN true;
    END IF;

    SELECT array_agg(held.id), array_agg(DISTINCT held.queue) INTO messages, queues
    FROM (
        SELECT message.id, message.queue
        FROM jobbridge_broker.messages AS message
        WHERE message.correlation_id = hold.task_id AND message.leased_by IS NULL AND message.due_at = 'infinity'
        FOR UPDATE SKIP LOCKED
    ) AS held;
    IF messages IS NULL THEN
        SELECT true INTO is_pending
        FROM public.jobs AS job
        WHERE job.job_id = hold.job_id AND job.tenant = hold.tenant
            AND job.message IS NOT NULL AND job.undelivered_since IS NULL AND job.status = 'pending'
        FOR UPDATE SKIP LOCKED;
    END IF;
    IF messages IS NULL AND is_pending IS NULL THEN
        UPDATE public.job_holds AS own SET state = 'passed'
        WHERE own.job_id = hold.job_id AND own.tenant = hold.tenant AND own.rule = hold.rule;
        RETURN false;
    END IF;
    UPDATE public.job_holds AS own SET state = 'running', slot_at = begins, admitted_at = clock_timestamp()
    WHERE own.job_id = hold.job_id AND own.tenant = hold.tenant AND own.rule = hold.rule;
    IF messages IS NOT NULL THEN
        UPDATE jobbridge_broker.messages AS held
        SET due_at = CASE WHEN begins > clock_timestamp() THEN begins END, is_ruled = NULL
        WHERE held.id = ANY(messages);
        PERFORM pg_notify(
            'jb_' || left(encode(sha256(convert_to(told.queue, 'UTF8')), 'hex'), 40),
            CASE WHEN begins > clock_timestamp() THEN 'due' ELSE '' END
        )
        FROM unnest(queues) AS told (queue);
    ELSE
        UPDATE public.jobs AS job
        SET undelivered_since = greatest(begins, clock_timestamp()), relayed_at = NULL, updated_at = clock_timestamp()
        WHERE job.job_id = hold.job_id AND job.tenant = hold.tenant;
        PERFORM pg_notify('jobbridge_relay', coalesce('at ' || extract(epoch FROM begins), 'now'));
    END IF;
    RETURN true;
END
$$
"""

#: In the order in which they are admitted, so that no two wait for each other. The message of one that was held goes,
#: too: nobody would ever see it.
_RELEASE = f"""
CREATE FUNCTION public.jobbridge_release_holds() RETURNS trigger
{_HEAD} AS $$
DECLARE
    was_held boolean;
BEGIN
    SELECT bool_or(held.state <> 'running') INTO was_held
    FROM (
        SELECT hold.state
        FROM public.job_holds AS hold
        WHERE hold.job_id = old.job_id AND hold.tenant = old.tenant
        ORDER BY hold.rank, hold.rule
        FOR UPDATE
    ) AS held;
    DELETE FROM public.job_holds AS hold WHERE hold.job_id = old.job_id AND hold.tenant = old.tenant;
    IF was_held THEN
        DELETE FROM jobbridge_broker.messages AS message
        WHERE message.correlation_id = old.task_id AND message.leased_by IS NULL AND message.due_at = 'infinity';
    END IF;
    RETURN NULL;
END
$$
"""

#: Whoever gives a job to the relay: not before its rules let it go. All that looks at jobs and messages comes after the
#: update: a trigger before it would have Postgres lock each row that anybody updates.
_KEEP = f"""
CREATE FUNCTION public.jobbridge_keep_held() RETURNS trigger
{_HEAD} AS $$
DECLARE
    first public.job_holds;
BEGIN
    SELECT * INTO first
    FROM public.job_holds AS hold
    WHERE hold.job_id = new.job_id AND hold.tenant = new.tenant AND hold.state <> 'running'
    ORDER BY hold.rank, hold.rule
    LIMIT 1;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    UPDATE public.jobs AS job SET undelivered_since = NULL WHERE job.job_id = new.job_id AND job.tenant = new.tenant;
    IF first.state = 'later' AND first.due_at IS NULL THEN
        UPDATE public.job_holds AS hold
        SET due_at = coalesce(new.run_at, clock_timestamp())
        WHERE hold.job_id = first.job_id AND hold.tenant = first.tenant AND hold.rule = first.rule;
        PERFORM pg_notify('jobbridge_relay', 'due ' || extract(epoch FROM coalesce(new.run_at, clock_timestamp())));
    END IF;
    RETURN NULL;
END
$$
"""

#: A message that has come due, and not before then, stands in line.
_COME_DUE = f"""
CREATE FUNCTION public.jobbridge_hold_due() RETURNS trigger
{_HEAD} AS $$
BEGIN
    UPDATE public.job_holds AS hold
    SET state = 'waiting'
    FROM (
        SELECT first.job_id, first.tenant, first.rule
        FROM public.job_holds AS first
        WHERE first.task_id = old.correlation_id AND first.state = 'later'
        ORDER BY first.rank, first.rule
        LIMIT 1
    ) AS first
    WHERE hold.job_id = first.job_id AND hold.tenant = first.tenant AND hold.rule = first.rule;
    IF FOUND THEN
        UPDATE jobbridge_broker.messages AS message SET due_at = 'infinity' WHERE message.id = old.id;
    END IF;
    RETURN NULL;
END
$$
"""

_FUNCTIONS = {
    "jobbridge_note_hold()": _NOTE,
    "jobbridge_admit(public.job_holds, timestamptz)": _ADMIT,
    "jobbridge_settle_rule(public.job_rule_changes)": _SETTLE,
    "jobbridge_settle_rules()": _SETTLE_ALL,
    "jobbridge_release_holds()": _RELEASE,
    "jobbridge_keep_held()": _KEEP,
    "jobbridge_hold_due()": _COME_DUE,
}

#: A cancelled job's work goes on until its worker has said that it stopped, and its place is taken until then.
_TRIGGERS = {
    "jobbridge_hold_waits": """AFTER INSERT ON public.job_holds
        FOR EACH ROW WHEN (new.state = 'waiting') EXECUTE FUNCTION public.jobbridge_note_hold()""",
    "jobbridge_hold_waits_now": """AFTER UPDATE ON public.job_holds
        FOR EACH ROW WHEN (new.state = 'waiting' AND old.state <> 'waiting')
        EXECUTE FUNCTION public.jobbridge_note_hold()""",
    "jobbridge_hold_gone": """AFTER DELETE ON public.job_holds
        FOR EACH ROW EXECUTE FUNCTION public.jobbridge_note_hold()""",
    "jobbridge_job_ended": """AFTER UPDATE ON public.jobs
        FOR EACH ROW WHEN (new.is_ruled AND new.completed_at IS NOT NULL
            AND (new.status <> 'cancelled' OR new.worker_number IS NULL))
        EXECUTE FUNCTION public.jobbridge_release_holds()""",
    "jobbridge_job_gone": """AFTER DELETE ON public.jobs
        FOR EACH ROW WHEN (old.is_ruled) EXECUTE FUNCTION public.jobbridge_release_holds()""",
    "jobbridge_job_undelivered": """AFTER UPDATE ON public.jobs
        FOR EACH ROW WHEN (new.is_ruled AND new.undelivered_since IS NOT NULL AND old.undelivered_since IS NULL)
        EXECUTE FUNCTION public.jobbridge_keep_held()""",
    "jobbridge_message_due": """AFTER UPDATE OF due_at ON jobbridge_broker.messages
        FOR EACH ROW WHEN (old.is_ruled AND old.due_at < 'infinity' AND new.due_at IS NULL)
        EXECUTE FUNCTION public.jobbridge_hold_due()""",
}


def upgrade() -> None:
    _create_tables()
    for table in ("public.jobs", "jobbridge_broker.messages"):
        op.execute(f"ALTER TABLE {table} ADD COLUMN IF NOT EXISTS is_ruled boolean")
    op.execute("ALTER TABLE public.job_singletons ADD COLUMN IF NOT EXISTS kept_until timestamptz")
    for signature, function in _FUNCTIONS.items():
        op.execute(function)
        op.execute(f"REVOKE ALL ON FUNCTION public.{signature} FROM PUBLIC")
    for name, trigger in _TRIGGERS.items():
        op.execute(f"CREATE TRIGGER {name} {trigger}")
    op.execute("""
        CREATE CONSTRAINT TRIGGER jobbridge_settle_rules AFTER INSERT ON public.job_rule_changes
        DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION public.jobbridge_settle_rules()
    """)


def _create_tables() -> None:
    op.create_table(
        "job_rules",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("per", sa.Text, nullable=False),
        sa.Column("target", sa.Text, nullable=False),
        sa.Column("allowed", sa.Integer, nullable=False),
        sa.Column("period", sa.Interval),
        sa.Column("is_fair", sa.Boolean, nullable=False, server_default=sa.text("false")),
        sa.Column("ageing", sa.Interval),
        sa.Column("weights", JSONB),
        sa.Column("set_at", sa.DateTime(timezone=True), nullable=False, server_default=_NOW),
        sa.PrimaryKeyConstraint("name", name="job_rules_pkey"),
    )
    op.create_table(
        "job_limits",
        sa.Column("rule", sa.Text, nullable=False),
        sa.Column("rank", sa.SmallInteger, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("allowed", sa.Integer, nullable=False),
        sa.Column("period", sa.Interval),
        sa.Column("next_at", sa.DateTime(timezone=True)),
        sa.Column("is_fair", sa.Boolean, nullable=False, server_default=sa.text("false")),
        sa.Column("weights", JSONB),
        sa.Column("passed", sa.Double, nullable=False, server_default=sa.text("0")),
        sa.Column("is_set", sa.Boolean, nullable=False, server_default=sa.text("false")),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False, server_default=_NOW),
        sa.PrimaryKeyConstraint("rule", name="job_limits_pkey"),
        postgresql_with=_CHURNING,
    )
    op.create_table(
        "job_holds",
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("job_id", sa.Uuid, nullable=False),
        sa.Column("rule", sa.Text, nullable=False),
        sa.Column("rank", sa.SmallInteger, nullable=False),
        sa.Column("task_id", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("priority", sa.SmallInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("place", sa.Double),
        sa.Column("sequence", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("allowed", sa.Integer, nullable=False),
        sa.Column("period", sa.Interval),
        sa.Column("is_fair", sa.Boolean, nullable=False, server_default=sa.text("false")),
        sa.Column("due_at", sa.DateTime(timezone=True)),
        sa.Column("slot_at", sa.DateTime(timezone=True)),
        sa.Column("held_at", sa.DateTime(timezone=True), nullable=False, server_default=_NOW),
        sa.Column("admitted_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("job_id", "tenant", "rule", name="job_holds_pkey"),
        sa.CheckConstraint(
            "state IN ('later', 'waiting', 'running', 'passed')", name="job_holds_state_check"
        ),
        postgresql_with=_CHURNING,
    )
    waiting = sa.text("state = 'waiting'")
    op.create_index(
        "job_holds_waiting_idx",
        "job_holds",
        ["rule", sa.text("priority DESC"), "place", "sequence", "tenant"],
        postgresql_where=waiting,
    )
    op.create_index(
        "job_holds_fair_idx",
        "job_holds",
        ["rule", "tenant", "place"],
        postgresql_where=sa.text("state = 'waiting' AND is_fair"),
    )
    op.create_index(
        "job_holds_new_idx",
        "job_holds",
        ["rule", "sequence", "tenant"],
        postgresql_where=sa.text("state = 'waiting' AND is_fair AND place IS NULL"),
    )
    op.create_index(
        "job_holds_running_idx",
        "job_holds",
        ["rule", "tenant"],
        postgresql_where=sa.text("state = 'running'"),
    )
    op.create_index(
        "job_holds_later_idx", "job_holds", ["task_id", "tenant"], postgresql_where=sa.text("state = 'later'")
    )
    op.create_index(
        "job_holds_due_idx",
        "job_holds",
        ["due_at", "tenant"],
        postgresql_where=sa.text("state = 'later' AND due_at IS NOT NULL"),
    )
    op.create_table(
        "job_rule_changes",
        sa.Column("transaction", sa.BigInteger, nullable=False),
        sa.Column("rank", sa.SmallInteger, nullable=False),
        sa.Column("rule", sa.Text, nullable=False),
        sa.Column("kind", sa.Text),
        sa.Column("allowed", sa.Integer),
        sa.Column("period", sa.Interval),
        sa.Column("is_fair", sa.Boolean),
        sa.PrimaryKeyConstraint("transaction", "rank", "rule", name="job_rule_changes_pkey"),
        prefixes=["UNLOGGED"],
        postgresql_with=_CHURNING,
    )


def downgrade() -> None:
    for name in _TRIGGERS:
        table = _TRIGGERS[name].split(" ON ", 1)[1].split()[0]
        op.execute(f"DROP TRIGGER {name} ON {table}")
    op.execute("DROP TRIGGER jobbridge_settle_rules ON public.job_rule_changes")
    for signature in reversed(_FUNCTIONS):
        op.execute(f"DROP FUNCTION public.{signature}")
    op.drop_column("messages", "is_ruled", schema="jobbridge_broker")
    op.drop_column("jobs", "is_ruled")
    op.drop_column("job_singletons", "kept_until")
    for table in ("job_rule_changes", "job_holds", "job_limits", "job_rules"):
        op.drop_table(table)
