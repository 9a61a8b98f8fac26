"""The guarded statements that change a job: one per kind of event, one round trip each.

Each changes the row only if its guard holds, and writes the attempt's step along with it; then it returns the row's
new status and attempt. No row means: refused. When an event may move a row, and to which status, is read from the table
in `jobbridge.core.machine` (see `guards`); a property test compares what the two make of the same events.

The time of a change is `clock_timestamp()`: start and end may be in one transaction. What is due is decided by `now()`.
"""

from __future__ import annotations

from typing import LiteralString

from jobbridge.core import events
from jobbridge.core.keys import SYSTEM_TENANT
from jobbridge.store.jobs.guards import becomes, may
from jobbridge.store.statuses import WAITING_STATUSES

_THIS_JOB = "tenant = %(tenant)s AND job_id = %(job_id)s"

#: What every end of a job leaves: nothing to deliver, and no envelope, which may be large.
ENDED = "message = NULL, undelivered_since = NULL, completed_at = clock_timestamp(), updated_at = clock_timestamp()"

#: In a condition: the transaction that moves the row does not wait for the disk.
RELAXED = "set_config('synchronous_commit', 'off', true) = 'off'"

#: What becomes of a step whose attempt never said how it ended. `lost` lets a late AttemptFailed correct it.
LOST = """status = 'failed', error = 'The attempt was lost with its worker.',
        metadata = step.metadata || '{"lost": true}',
        processed_at = clock_timestamp(), updated_at = clock_timestamp()"""

#: Closes the running attempt's step, if there is one. `moved` must be a CTE that returns tenant, job_id, attempt.
STEP_OF_MOVED = """
    FROM moved
    WHERE step.tenant = moved.tenant AND step.job_id = moved.job_id AND step.step_name = 'attempt'
      AND step.retry_count = moved.attempt AND step.status = 'processing'"""

#: The same for a job that ends while it waits: the attempt that is suspended, and what it waits for, have ended too.
STEPS_OF_STOPPED: LiteralString = f"""
    FROM moved
    WHERE step.tenant = moved.tenant AND step.job_id = moved.job_id
      AND (step.step_name = 'attempt' AND step.retry_count = moved.attempt AND step.status = 'processing'
        OR step.status IN ({WAITING_STATUSES}) AND step.metadata ?| '{{suspended,durable}}')"""

#: The step of an attempt that was suspended goes on with it.
REOPENED: LiteralString = f"""reopened AS (
    UPDATE public.job_details AS step
    SET status = 'processing', metadata = step.metadata || %(step_metadata)s::jsonb, updated_at = clock_timestamp()
    FROM moved
    WHERE step.tenant = moved.tenant AND step.job_id = moved.job_id AND step.step_name = 'attempt'
      AND step.retry_count = moved.attempt AND step.status IN ({WAITING_STATUSES}) AND step.metadata ? 'suspended'
    RETURNING step.job_id
)"""

#: Ends a statement that starts an attempt.
_OPENED = """, opened AS (
    INSERT INTO public.job_details
        (tenant, job_id, step_name, status, retry_count, metadata, created_at, updated_at)
    SELECT tenant, job_id, 'attempt', 'processing', attempt, %(step_metadata)s, clock_timestamp(), clock_timestamp()
    FROM moved
)
SELECT status, attempt FROM moved"""

UNLESS_REOPENED = """
    WHERE NOT EXISTS (SELECT FROM reopened WHERE reopened.job_id = moved.job_id)"""

#: Ends a statement that ends a job: if that is a child of a fan-out, its parent counts it, in the same moment. Only for
#: a job that another one sent (it has a `parent_id`), so others pay nothing. A child that is run again and ends once
#: more is not counted again, but its parent learns how it ended.
_COUNTED = """, member AS (
    SELECT known.tenant, known.child_id, known.status AS former, known.parent_tenant, known.parent_id,
        moved.status AS status
    FROM moved
    CROSS JOIN LATERAL (
        SELECT * FROM public.job_family_members AS any_member
        WHERE any_member.tenant = moved.tenant AND any_member.child_id = moved.job_id
        FOR UPDATE
    ) AS known
    WHERE moved.parent_id IS NOT NULL
), ended AS (
    UPDATE public.job_family_members AS child
    SET status = member.status, ended_at = clock_timestamp()
    FROM member
    WHERE child.tenant = member.tenant AND child.child_id = member.child_id
), counted AS (
    UPDATE public.job_families AS fan_out
    SET running = running - 1, unfinished = unfinished - 1, updated_at = clock_timestamp()
    FROM member
    WHERE fan_out.tenant = member.parent_tenant AND fan_out.parent_id = member.parent_id
      AND member.former = 'released'
    RETURNING fan_out.tenant, fan_out.parent_id
)
SELECT moved.status, moved.attempt, counted.tenant, counted.parent_id FROM moved LEFT JOIN counted ON true"""

_OF_THIS_CHORD: LiteralString = f"chord.tenant = '{SYSTEM_TENANT}' AND chord.chord_id = moved.chord_id"
_IS_DUE: LiteralString = "chord.broken_by IS NOT NULL OR chord.counted >= chord.size + chord.added"

#: The same for what may be a chord's part, which the chord counts; and for a link before a part: if that ended so that
#: the chain does not go on and nobody tells, the chord is broken.
_PART_COUNTED = f"""{_COUNTED.rpartition("SELECT")[0].rstrip()}, part AS (
    UPDATE public.job_chords AS chord
    SET counted = chord.counted + (moved.chord_index IS NOT NULL)::integer,
        broken_by = CASE WHEN moved.chord_index IS NULL THEN coalesce(chord.broken_by, moved.job_id)
                         ELSE chord.broken_by END,
        updated_at = clock_timestamp()
    FROM moved
    WHERE {_OF_THIS_CHORD} AND (moved.chord_index IS NOT NULL OR %(breaks)s::boolean)
    RETURNING {_IS_DUE} AS is_due
)
SELECT moved.status, moved.attempt, counted.tenant, counted.parent_id, moved.chord_id, part.is_due
FROM moved LEFT JOIN counted ON true LEFT JOIN part ON true"""

#: The same for ends that are not good: a job that replaced itself waits for its canvas no more (`chords`).
_PART_DROPPED = f"""{_PART_COUNTED.rpartition("SELECT")[0].rstrip()}, unawaited AS (
    DELETE FROM public.job_chords AS awaited
    USING moved
    WHERE awaited.tenant = '{SYSTEM_TENANT}' AND awaited.chord_id = 'replaced:' || moved.job_id
)
SELECT {_PART_COUNTED.rpartition("SELECT")[2]}"""

#: What the statements that count a part return of the row.
_ENDED_PART = "tenant, job_id, parent_id, status, attempt, chord_id, chord_index"

#: Later states keep theirs; the ids are kept all the same. It does not wait for the disk: should a crash forget it, the
#: relay asks the engine, which has the job.
ACCEPT: LiteralString = f"""
UPDATE public.jobs AS job
SET status = {becomes(events.Accepted)},
    runner_type = %(engine)s,
    external_id = %(external_id)s,
    external_run_id = coalesce(%(external_run_id)s, external_run_id),
    undelivered_since = NULL,
    updated_at = clock_timestamp()
WHERE {_THIS_JOB} AND {may(events.Accepted)} AND (NOT %(is_alone)s OR {RELAXED})
RETURNING status, attempt
"""

#: The message of the new delivery is in the broker, by the same transaction.
FALL_BACK: LiteralString = f"""
UPDATE public.jobs AS job
SET status = {becomes(events.FellBack)},
    delivery = %(new_delivery)s, runner_type = %(engine)s,
    message = NULL, undelivered_since = NULL, relayed_at = NULL, updated_at = clock_timestamp()
WHERE {_THIS_JOB} AND {may(events.FellBack)}
RETURNING status, attempt
"""

#: The gate: jobs of a suspended tenant do not start, nor those of a paused queue whose message can go back to it.
#: In the claim itself, so that it costs no round trip.
GATE = """
      AND NOT EXISTS (SELECT FROM public.job_suspensions AS suspension WHERE suspension.tenant = %(tenant)s)
      AND NOT (%(goes_back)s::boolean
          AND EXISTS (SELECT FROM public.job_queue_pauses AS pause WHERE pause.queue = %(queue)s))"""

SUSPENSION: LiteralString = "SELECT reason FROM public.job_suspensions WHERE tenant = %(tenant)s"

PAUSE: LiteralString = "SELECT true FROM public.job_queue_pauses WHERE queue = %(queue)s"

#: For the relay: the message goes by another delivery now.
REDELIVER: LiteralString = f"""
WITH moved AS (
    UPDATE public.jobs AS job
    SET status = {becomes(events.Redelivered)}, delivery = %(new_delivery)s, message = %(message)s,
        undelivered_since = clock_timestamp(), relayed_at = NULL, worker = NULL, worker_number = NULL,
        updated_at = clock_timestamp()
    WHERE {_THIS_JOB} AND {may(events.Redelivered)}
    RETURNING tenant, job_id, status, attempt
), lost AS (
    UPDATE public.job_details AS step
    SET {LOST}{STEP_OF_MOVED}
)
SELECT status, attempt, pg_notify('jobbridge_relay', '') FROM moved
"""

#: To another engine: the broker has the message by the same transaction, or the row has it, for the relay.
MOVE: LiteralString = f"""
WITH moved AS (
    UPDATE public.jobs AS job
    SET status = {becomes(events.Moved)}, delivery = %(new_delivery)s, runner_type = %(engine)s,
        message = %(message)s, relayed_at = NULL, broker = NULL,
        undelivered_since = CASE WHEN %(message)s::text IS NOT NULL THEN clock_timestamp() END,
        external_id = coalesce(%(external_id)s, external_id), external_run_id = NULL,
        worker = NULL, worker_number = NULL, updated_at = clock_timestamp()
    WHERE {_THIS_JOB} AND {may(events.Moved)}
    RETURNING status, attempt
)
SELECT status, attempt, CASE WHEN %(message)s::text IS NOT NULL THEN pg_notify('jobbridge_relay', '') END FROM moved
"""

#: The claim. A step of an earlier attempt that is still open belongs to one that was lost with its worker, or whose
#: AttemptFailed is still on its way.
START: LiteralString = f"""
WITH moved AS (
    UPDATE public.jobs AS job
    SET status = {becomes(events.Started)},
        attempt = attempt + 1,
        delivery = coalesce(%(delivery)s, delivery),
        runner_type = %(engine)s,
        queue = %(queue)s,
        worker = %(worker)s,
        worker_number = %(worker_number)s,
        max_attempts = coalesce(%(max_attempts)s, max_attempts),
        external_id = coalesce(%(external_id)s, external_id),
        external_run_id = coalesce(%(external_run_id)s, external_run_id),
        undelivered_since = NULL,
        progress = NULL, progress_message = NULL, error = NULL, traceback = NULL,
        started_at = coalesce(started_at, clock_timestamp()),
        updated_at = clock_timestamp()
    WHERE {_THIS_JOB} AND {may(events.Started)}{GATE}
    RETURNING tenant, job_id, status, attempt
), lost AS (
    UPDATE public.job_details AS step
    SET {LOST}
    FROM moved
    WHERE step.tenant = moved.tenant AND step.job_id = moved.job_id AND step.step_name = 'attempt'
      AND step.retry_count < moved.attempt AND step.status = 'processing'
), {REOPENED}{_OPENED.replace("FROM moved", f"FROM moved{UNLESS_REOPENED}", 1)}
"""

#: A job that was sent by a client which does not keep our books.
START_UNKNOWN: LiteralString = f"""
WITH moved AS (
    INSERT INTO public.jobs (
        tenant, job_id, task_id, type, status, metadata, runner_type, external_id, external_run_id, queue,
        delivery, attempt, max_attempts, worker, worker_number, created_at, updated_at, started_at
    )
    SELECT
        %(tenant)s, %(job_id)s, %(task_id)s, %(type)s, 'processing', %(metadata)s, %(engine)s, %(external_id)s,
        %(external_run_id)s, %(queue)s, %(delivery)s, 1, %(max_attempts)s, %(worker)s,
        %(worker_number)s, clock_timestamp(), clock_timestamp(), clock_timestamp()
    WHERE true{GATE}
    ON CONFLICT (tenant, job_id) DO NOTHING
    RETURNING tenant, job_id, status, attempt
){_OPENED}
"""

PROGRESS: LiteralString = f"""
UPDATE public.jobs AS job
SET progress = %(progress)s, progress_message = %(message)s, updated_at = clock_timestamp()
WHERE {_THIS_JOB} AND {may(events.Progressed)}
RETURNING status, attempt
"""

#: The step is written whatever the row says: the retry's own Submitted, and even the next start, may have come first.
FAIL_ATTEMPT: LiteralString = f"""
WITH moved AS (
    UPDATE public.jobs AS job
    SET status = {becomes(events.AttemptFailed)}, error = %(error)s, traceback = %(traceback)s,
        updated_at = clock_timestamp()
    WHERE {_THIS_JOB} AND {may(events.AttemptFailed)}
    RETURNING status, attempt
), closed AS (
    UPDATE public.job_details
    SET status = 'failed', error = %(error)s, traceback = %(traceback)s, metadata = metadata - 'lost',
        processed_at = clock_timestamp(), updated_at = clock_timestamp()
    WHERE {_THIS_JOB} AND step_name = 'attempt' AND retry_count = %(attempt)s
      AND (status = 'processing' OR metadata ? 'lost')
)
SELECT status, attempt FROM moved
"""

COMPLETE: LiteralString = f"""
WITH moved AS (
    UPDATE public.jobs AS job
    SET status = {becomes(events.Completed)}, result = %(result)s, result_payload = %(result_payload)s,
        result_type = %(result_type)s, error = NULL, traceback = NULL, progress = 100, {ENDED}
    WHERE {_THIS_JOB} AND {may(events.Completed)}
    RETURNING tenant, job_id, parent_id, status, attempt
), closed AS (
    UPDATE public.job_details AS step
    SET status = 'completed', processed_at = clock_timestamp(), updated_at = clock_timestamp(){STEP_OF_MOVED}
){_COUNTED}
"""

COMPLETE_PART: LiteralString = COMPLETE.replace(
    "tenant, job_id, parent_id, status, attempt", _ENDED_PART
).replace(_COUNTED, _PART_COUNTED.replace("%(breaks)s", "false"))

FAIL: LiteralString = f"""
WITH moved AS (
    UPDATE public.jobs AS job
    SET status = {becomes(events.Failed)}, unsuccessful = 'failed',
        result = %(result)s, result_payload = %(result_payload)s, result_type = %(result_type)s,
        error = %(error)s, traceback = %(traceback)s, {ENDED}
    WHERE {_THIS_JOB} AND {may(events.Failed)}
    RETURNING {_ENDED_PART}
), closed AS (
    UPDATE public.job_details AS step
    SET status = 'failed', error = %(error)s, traceback = %(traceback)s,
        processed_at = clock_timestamp(), updated_at = clock_timestamp(){STEPS_OF_STOPPED}
){_PART_DROPPED}
"""

FAIL_UNKNOWN: LiteralString = f"""
WITH moved AS (
    INSERT INTO public.jobs (
        tenant, job_id, task_id, type, status, runner_type, external_id, root_id, parent_id, delivery, result,
        result_payload, result_type, error, traceback, created_at, updated_at, completed_at, unsuccessful,
        chord_id, chord_index
    )
    VALUES (
        %(tenant)s, %(job_id)s, %(task_id)s, %(type)s, 'failed', %(engine)s, %(external_id)s, %(root_id)s,
        %(parent_id)s, %(delivery)s, %(result)s, %(result_payload)s, %(result_type)s, %(error)s, %(traceback)s,
        clock_timestamp(), clock_timestamp(), clock_timestamp(), 'failed', %(chord_id)s, %(chord_index)s
    )
    ON CONFLICT (tenant, job_id) DO NOTHING
    RETURNING {_ENDED_PART}
){_PART_COUNTED}
"""

#: Back to the queue: by the same delivery, or without one (`Replaced`: a chain's last task will bring its own).
RELEASE: LiteralString = f"""
WITH moved AS (
    UPDATE public.jobs AS job
    SET status = {becomes(events.Requeued)}, worker = NULL, worker_number = NULL,
        delivery = CASE WHEN %(keeps_delivery)s::boolean THEN delivery END,
        updated_at = clock_timestamp()
    WHERE {_THIS_JOB} AND {may(events.Requeued)}
    RETURNING tenant, job_id, status, attempt
), closed AS (
    UPDATE public.job_details AS step
    SET status = %(step_status)s, error = %(reason)s, metadata = step.metadata || %(step_metadata)s,
        processed_at = clock_timestamp(), updated_at = clock_timestamp(){STEP_OF_MOVED}
)
SELECT status, attempt FROM moved
"""

#: Its children run now: nobody holds it until the last of them sends it again. The message stays, for an activity that
#: comes again and is refused.
AWAIT_CHILDREN: LiteralString = f"""
WITH moved AS (
    UPDATE public.jobs AS job
    SET delivery = NULL, worker = NULL, worker_number = NULL, updated_at = clock_timestamp()
    WHERE {_THIS_JOB} AND {may(events.AwaitsChildren)}
    RETURNING tenant, job_id, status, attempt
), closed AS (
    UPDATE public.job_details AS step
    SET status = 'completed', metadata = step.metadata || '{{"fan_out": true}}',
        processed_at = clock_timestamp(), updated_at = clock_timestamp(){STEP_OF_MOVED}
)
SELECT status, attempt FROM moved
"""

#: Of a cancelled job the worker's number says that its attempt may still run there, until STOPPED.
CANCEL: LiteralString = f"""
WITH moved AS (
    UPDATE public.jobs AS job
    SET status = {becomes(events.Cancelled)}, unsuccessful = 'cancelled',
        worker_number = CASE WHEN job.status = 'processing' THEN job.worker_number END,
        cancel_reason = %(reason)s, cancelled_by = %(cancelled_by)s, {ENDED}
    WHERE {_THIS_JOB} AND {may(events.Cancelled)}
    RETURNING {_ENDED_PART}
), closed AS (
    UPDATE public.job_details AS step
    SET status = 'cancelled', error = %(reason)s,
        processed_at = clock_timestamp(), updated_at = clock_timestamp(){STEPS_OF_STOPPED}
){_PART_DROPPED.replace("%(breaks)s", "true")}
"""

#: The work of a cancelled job has come to its end, whatever that was: its singleton key is free.
STOPPED: LiteralString = f"""
UPDATE public.jobs
SET worker_number = NULL
WHERE {_THIS_JOB} AND status = 'cancelled' AND (attempt = %(attempt)s OR worker_number = %(worker_number)s)
"""

#: Expired and skipped: it never ran, or not again.
DROP: LiteralString = f"""
WITH moved AS (
    UPDATE public.jobs AS job
    SET status = %(status)s, unsuccessful = %(status)s, error = %(reason)s, {ENDED}
    WHERE {_THIS_JOB} AND {may(events.Expired)}
    RETURNING {_ENDED_PART}
), lost AS (
    UPDATE public.job_details AS step
    SET {LOST}{STEPS_OF_STOPPED}
){_PART_DROPPED.replace("%(breaks)s", "true")}
"""

#: For the reason of a refusal.
STATE: LiteralString = f"""
SELECT status, attempt, delivery, run_at FROM public.jobs WHERE {_THIS_JOB}
"""
