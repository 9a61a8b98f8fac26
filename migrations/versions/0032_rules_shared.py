"""Who sends a job under a rule that is full waits for nobody who does the same (decision 0033)."""

from __future__ import annotations

from alembic import op

revision = "0032_rules_shared"
down_revision = "0031_followers"
branch_labels = None
depends_on = None
serves_since = "0014_relatives"  # the same, faster

#: All as their owner, with qualified names: see 0008.
_HEAD = "LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp"

#: Whether nothing is to be decided for a job that comes: no place is free, and the rule is as it is known. Volatile: it
#: sees what others have committed since the lock was asked for.
_IS_FULL = f"""
CREATE OR REPLACE FUNCTION public.jobbridge_rule_is_full(change public.job_rule_changes) RETURNS boolean
{_HEAD} VOLATILE AS $$
DECLARE
    known public.job_limits;
BEGIN
    SELECT * INTO known FROM public.job_limits AS own WHERE own.rule = change.rule;
    IF NOT FOUND OR known.kind <> 'concurrency' OR known.is_fair
        OR NOT known.is_set AND (known.allowed, known.is_fair) IS DISTINCT FROM (change.allowed, change.is_fair)
    THEN
        RETURN false;
    END IF;
    RETURN known.allowed <= (
        SELECT count(*) FROM public.job_holds AS running
        WHERE running.rule = change.rule AND running.state = 'running'
    );
END
$$
"""

#: As in 0029, but for the lock. Whoever gives or takes places has it alone until the commit. Who only comes to stand in
#: line behind a full rule shares it: whoever frees a place waits for him, and sees him; or he comes later, and sees the
#: free place. In a transaction that sees no later commits nobody is shared with.
_SETTLE = f"""
CREATE OR REPLACE FUNCTION public.jobbridge_settle_rule(change public.job_rule_changes) RETURNS void
{_HEAD} AS $$
DECLARE
    known public.job_limits;
    hold public.job_holds;
    free integer;
    slot timestamptz;
    start double precision;
    key bigint := hashtextextended('jobbridge rule ' || change.rule, 0);
BEGIN
    IF change.allowed IS NOT NULL AND current_setting('transaction_isolation') = 'read committed'
        AND public.jobbridge_rule_is_full(change)
    THEN
        BEGIN
            PERFORM pg_advisory_xact_lock_shared(key);
            IF public.jobbridge_rule_is_full(change) THEN
                RETURN;
            END IF;
            RAISE EXCEPTION USING ERRCODE = 'JB001';
        EXCEPTION WHEN SQLSTATE 'JB001' THEN
            NULL;  -- a place became free: the shared lock is let go, since two that hold it could not both have more
        END;
    END IF;
    PERFORM pg_advisory_xact_lock(key);
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

#: As in 0029, but that a row which says so already is not written again: of 10,000 jobs that one transaction sends
#: under one rule, each would look at all versions before it.
_NOTE = f"""
CREATE OR REPLACE FUNCTION public.jobbridge_note_hold() RETURNS trigger
{_HEAD} AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        INSERT INTO public.job_rule_changes (transaction, rank, rule)
        VALUES (pg_current_xact_id()::text::bigint, old.rank, old.rule)
        ON CONFLICT DO NOTHING;
    ELSE
        INSERT INTO public.job_rule_changes AS own (transaction, rank, rule, kind, allowed, period, is_fair)
        VALUES (pg_current_xact_id()::text::bigint, new.rank, new.rule, new.kind, new.allowed, new.period, new.is_fair)
        ON CONFLICT (transaction, rank, rule) DO UPDATE
        SET kind = excluded.kind, allowed = excluded.allowed, period = excluded.period, is_fair = excluded.is_fair
        WHERE (own.kind, own.allowed, own.period, own.is_fair)
            IS DISTINCT FROM (excluded.kind, excluded.allowed, excluded.period, excluded.is_fair);
    END IF;
    RETURN NULL;
END
$$
"""

_FORMER_NOTE = f"""
CREATE OR REPLACE FUNCTION public.jobbridge_note_hold() RETURNS trigger
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

_FORMER_SETTLE = f"""
CREATE OR REPLACE FUNCTION public.jobbridge_settle_rule(change public.job_rule_changes) RETURNS void
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


def upgrade() -> None:
    op.execute(_IS_FULL)
    op.execute("REVOKE ALL ON FUNCTION public.jobbridge_rule_is_full(public.job_rule_changes) FROM PUBLIC")
    op.execute(_SETTLE)
    op.execute(_NOTE)


def downgrade() -> None:
    op.execute(_FORMER_NOTE)
    op.execute(_FORMER_SETTLE)
    op.execute("DROP FUNCTION public.jobbridge_rule_is_full(public.job_rule_changes)")
