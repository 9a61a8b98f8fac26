"""Why a job does not run, or what became of it: `jobbridge explain JOB`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from shlex import quote
from typing import TYPE_CHECKING

from jobbridge.broker import count_ahead, messages_of, why_buried
from jobbridge.core.keys import Engine
from jobbridge.core.light import activity_id_in
from jobbridge.core.status import FINAL, JobStatus
from jobbridge.diagnosis import waits
from jobbridge.diagnosis.consumers import knowing, serving, start_hint
from jobbridge.diagnosis.findings import age, duration
from jobbridge.errors import EngineUnavailable
from jobbridge.store.jobs.admission import suspension_of
from jobbridge.store.rules.holds import holdings
from jobbridge.store.workers.queue_pauses import QueuePauses
from jobbridge.store.workers.workers import WorkerRow

if TYPE_CHECKING:
    from jobbridge.app.application import Celery
    from jobbridge.broker import WaitingMessage
    from jobbridge.core.fanout import ChildCounts
    from jobbridge.store.jobs.rows import JobRow
    from jobbridge.store.rules.holds import Holding
    from jobbridge.store.waits.queries import Wait
    from jobbridge.temporal.reconcile.inspect import WorkflowFacts


@dataclass(frozen=True, kw_only=True, slots=True)
class Reason:
    """One thing that bears on a job.

    Attributes:
        code: For programs: ended, not_due, held, pending, no_worker, unknown_task, in_line, prefetched, running,
            worker_lost, no_message, buried, no_workflow, workflow_closed, unreachable, fell_back, expires, last_error,
            not_started, waits_for_chain, suspended, children, queue_paused, sleeping, waits_for_event, waits_for_call,
            wait_overdue.
        what: For people.
        hint: What to do, in the imperative; empty: nothing.
    """

    code: str
    what: str
    hint: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Explanation:
    """Why a job is where it is; what keeps it from running comes first."""

    job: JobRow
    reasons: tuple[Reason, ...]


def explain(app: Celery, job: JobRow) -> Explanation:
    """Look at a job's row, its message or workflow, and the workers.

    Raises:
        DatabaseUnavailable: Postgres cannot be reached.
    """
    return Explanation(job=job, reasons=(*_by_status(app, job), *_besides(app, job)))


def _by_status(app: Celery, job: JobRow) -> Iterator[Reason]:
    if job.status in FINAL:
        yield _ended(job)
        return
    if job.delivery is None and job.attempt > 0 and (counts := app.fan_outs.counts(job.key)) is not None:
        yield _children(counts)
        return
    if job.status is JobStatus.PROCESSING:
        yield from _processing(app, job)
        return
    yield from _suspended(app, job)
    yield from _in_paused_queue(app, job)
    if (wait := waits.wait_of(app, job)) is not None:
        yield from _waiting(app, job, wait)
        return
    if held := list(_held(app, job)):
        yield from held
        yield from _without_workers(app, job)
        return
    if job.run_at is not None and job.run_at > datetime.now(UTC):
        due = duration(job.run_at - datetime.now(UTC))
        yield Reason(code="not_due", what=f"It is not due: it starts at {job.run_at.isoformat()}, in {due}.")
    if job.status is JobStatus.PENDING:
        yield _pending(job)
    elif job.delivery is None and job.attempt > 0:
        yield Reason(
            code="waits_for_chain", what="It was replaced by a chain, and ends with that one's last task."
        )
        return
    elif job.runner_type is Engine.TEMPORAL:
        yield from _at_temporal(app, job)
    elif app.shares_database_with_broker:
        yield from _in_the_broker(app, job)
    yield from _without_workers(app, job)


def _waiting(app: Celery, job: JobRow, wait: Wait) -> Iterator[Reason]:
    for code, what, hint in waits.told(wait):
        yield Reason(code=code, what=what, hint=hint)
    if job.runner_type is Engine.CELERY and app.shares_database_with_broker:
        with app.database.transaction() as connection:
            is_there = messages_of(connection, job.task_id)
            buried = None if is_there else why_buried(connection, job.task_id)
        if not is_there:
            yield _without_message(buried)


def _ended(job: JobRow) -> Reason:
    at = "" if job.completed_at is None else f", {age(job.completed_at)} ago"
    match job.status:
        case JobStatus.COMPLETED:
            return Reason(code="ended", what=f"It completed{at}.")
        case JobStatus.FAILED:
            return Reason(
                code="ended",
                what=f"It failed at attempt {job.attempt}{at}: {_first_line(job.error)}",
                hint=f"Mend the cause, then run it again: `jobbridge jobs retry {job.job_id}`.",
            )
        case JobStatus.CANCELLED:
            by = f" by {job.cancelled_by}" if job.cancelled_by else ""
            why = f": {job.cancel_reason}" if job.cancel_reason else "."
            return Reason(code="ended", what=f"It was cancelled{by}{at}{why}")
        case JobStatus.EXPIRED:
            return Reason(
                code="ended",
                what=f"It expired before it ran{at}: its time to live ended at {job.expires_at}.",
                hint=f"Run it now with `jobbridge jobs retry {job.job_id}`.",
            )
        case _:
            return Reason(
                code="ended",
                what=f"It was skipped{at}: {_first_line(job.error) or 'its tenant is suspended'}",
                hint=f"After `jobbridge tenants resume {quote(job.tenant)}`: `jobbridge jobs retry {job.job_id}`.",
            )


def _children(counts: ChildCounts) -> Reason:
    return Reason(
        code="children",
        what=f"It waits for its children: {counts.ended} of {counts.total} have ended ({counts.failed} failed), "
        f"{counts.released} are under way, {counts.waiting} wait for their turn.",
    )


def _suspended(app: Celery, job: JobRow) -> Iterator[Reason]:
    with app.database.connection() as connection:
        why = suspension_of(connection, job.key)
    if why is not None:
        yield Reason(
            code="suspended",
            what=f"The tenant {job.tenant!r} is suspended: {why}. The job is skipped when a worker takes it.",
            hint=f"Let its jobs run again with `jobbridge tenants resume {quote(job.tenant)}`.",
        )


def _in_paused_queue(app: Celery, job: JobRow) -> Iterator[Reason]:
    queue = job.queue or app.conf.task_default_queue
    if (pause := QueuePauses(app.database).get(queue)) is not None:
        yield Reason(
            code="queue_paused",
            what=f"The queue {queue!r} is paused {pause}. Workers take nothing new from it.",
            hint=f"Let them take from it again with `jobbridge queues resume {quote(queue)}`.",
        )


def _held(app: Celery, job: JobRow) -> Iterator[Reason]:
    """Tell which rule across the fleet it waits for; nothing if none holds it."""
    with app.database.connection() as connection:
        found = holdings(connection, job.key)
    for each in found:
        if each.state == "running" and each.slot_at is not None and each.slot_at > datetime.now(UTC):
            due = duration(each.slot_at - datetime.now(UTC))
            yield Reason(
                code="held", what=f"The rule {each.rule!r} lets it begin in {due}: {_allowed(each)}."
            )
        if each.state not in {"waiting", "passed"}:
            continue
        many = "10,000 or more" if each.ahead >= 10_000 else str(each.ahead)
        yield Reason(
            code="held",
            what=f"The rule {each.rule!r} holds it: {_allowed(each)}, {each.running} have begun and not ended, "
            f"{many} wait before it.",
            hint="It starts when one of them has ended. See the rules with `jobbridge rules list`.",
        )


def _allowed(each: Holding) -> str:
    if each.period is None:
        return f"{each.allowed} at once"
    return f"{each.allowed} in {duration(each.period)}"


def _pending(job: JobRow) -> Reason:
    return Reason(
        code="pending",
        what=f"It is recorded, and {job.runner_type.value} has not accepted it for {age(job.updated_at)}.",
        hint="The relay delivers it: run a worker or `jobbridge maintain`, and see with `jobbridge doctor` that the "
        "engine can be reached.",
    )


# -- what runs


def _processing(app: Celery, job: JobRow) -> Iterator[Reason]:
    workers = app.workers.all()
    holder = next((worker for worker in workers if worker.number == job.worker_number), None)
    since = "" if job.started_at is None else f" for {age(job.started_at)}"
    what = f"Attempt {job.attempt} runs on {job.worker or 'a worker without a name'}{since}"
    if job.progress is not None:
        what += f", at {job.progress:g} %"
    if holder is not None and holder.is_alive:
        yield Reason(code="running", what=f"{what}. That worker lives.")
    elif job.worker_number is None:
        yield Reason(code="running", what=f"{what}. Whether that worker lives is not known.")
    else:
        yield Reason(
            code="worker_lost",
            what=f"{what}, which is gone.",
            hint="The reaper frees it within a minute: run a worker or `jobbridge maintain`.",
        )
    if job.runner_type is Engine.TEMPORAL:
        yield from _workflow_of_a_running_job(app, job)


def _workflow_of_a_running_job(app: Celery, job: JobRow) -> Iterator[Reason]:
    facts = _facts(app, job)
    if isinstance(facts, Reason):
        yield facts
    elif facts is None:
        yield Reason(
            code="no_workflow",
            what=f"Temporal knows no {_kind(job)} of it.",
            hint="The reconciler settles the row: run a Temporal worker.",
        )
    elif not facts.is_running:
        yield Reason(
            code="workflow_closed",
            what=f"Its {_kind(job)} is {facts.status}, which the row does not say yet.",
            hint="The reconciler settles the row: run a Temporal worker.",
        )


# -- what waits at the broker


def _in_the_broker(app: Celery, job: JobRow) -> Iterator[Reason]:
    with app.database.transaction() as connection:
        messages = messages_of(connection, job.task_id)
        buried = why_buried(connection, job.task_id) if not messages else None
        ahead = {message.id: count_ahead(connection, message) for message in messages}
    if not messages:
        yield _without_message(buried)
    for message in messages:
        if message.due_at is None or job.run_at is None:
            yield _about_message(message, ahead[message.id])


def _without_message(buried: str | None) -> Reason:
    if buried is not None:
        return Reason(code="buried", what=f"Its message is a dead letter: {buried}.")
    return Reason(
        code="no_message",
        what="Its message is not in the broker: it was taken a moment ago, or somebody purged the queue.",
        hint="If that lasts, the reaper sends it again: run a worker or `jobbridge maintain`.",
    )


def _about_message(message: WaitingMessage, ahead: int) -> Reason:
    if message.leased_by is not None:
        return Reason(
            code="prefetched",
            what=f"The worker process {message.pid} on {message.host} has its message, and is busy with others.",
            hint="Start more workers, or lower worker_prefetch_multiplier, if that lasts.",
        )
    if message.due_at is not None and message.due_at > datetime.now(UTC):
        return Reason(code="not_due", what=f"Its message is delivered at {message.due_at.isoformat()}.")
    if ahead:
        many = "10,000 or more" if ahead >= 10_000 else str(ahead)
        return Reason(
            code="in_line",
            what=f"{many} messages are before it in the queue {message.queue!r}.",
            hint="Start more workers if the queue does not shrink.",
        )
    return Reason(code="in_line", what=f"It is the next in the queue {message.queue!r}.")


# -- what waits at Temporal


def _at_temporal(app: Celery, job: JobRow) -> Iterator[Reason]:
    facts = _facts(app, job)
    if isinstance(facts, Reason):
        yield facts
        return
    if facts is None:
        yield Reason(
            code="no_workflow",
            what=f"Temporal knows no {_kind(job)} of it.",
            hint="The reconciler sends it again: run a Temporal worker.",
        )
        return
    if not facts.is_running:
        yield Reason(code="workflow_closed", what=f"Its {_kind(job)} is {facts.status}; the row will follow.")
        return
    for activity in facts.activities:
        failed = f" Its last failure: {activity.last_failure}" if activity.last_failure else ""
        yield Reason(
            code="in_line" if activity.state == "scheduled" else "running",
            what=f"In Temporal its activity is {activity.state} (try {activity.attempt}) "
            f"on {facts.task_queue!r}.{failed}",
        )


def _kind(job: JobRow) -> str:
    return "activity" if activity_id_in(job.external_id) else "workflow"


def _facts(app: Celery, job: JobRow) -> WorkflowFacts | Reason | None:
    try:
        from jobbridge.temporal.reconcile.inspect import look_at

        queue = job.queue or app.conf.task_default_queue
        return look_at(app, job.external_id or job.task_id, queue)
    except (ImportError, EngineUnavailable) as error:
        return Reason(
            code="unreachable", what=f"Temporal cannot be asked: {error}", hint="Run `jobbridge doctor`."
        )


# -- who would run it


def _without_workers(app: Celery, job: JobRow) -> Iterator[Reason]:
    workers = app.workers.alive()
    queue = job.queue or app.conf.task_default_queue
    served_by = serving(workers, job.runner_type, queue)
    if not served_by:
        yield Reason(
            code="no_worker",
            what=f"No worker of {job.runner_type.value} serves the queue {queue!r}.{_others(workers)}",
            hint=start_hint(job.runner_type, [queue]),
        )
    elif not knowing(workers, job.runner_type, queue, job.type):
        names = ", ".join(worker.name for worker in served_by)
        yield Reason(
            code="unknown_task",
            what=f"No worker that serves the queue {queue!r} knows {job.type!r}: {names}.",
            hint="Add the module that declares it to `include` of the worker's app, and restart the worker.",
        )


def _others(workers: Sequence[WorkerRow]) -> str:
    if not workers:
        return " No worker runs at all."
    named = "; ".join(f"{row.name} ({row.engine.value}): {', '.join(sorted(row.queues))}" for row in workers)
    return f" Running: {named}."


# -- what else is worth knowing


def _besides(app: Celery, job: JobRow) -> Iterator[Reason]:
    for step in app.jobs.details(job.key):
        if step.step_name == "fallback":
            why = step.metadata.get("reason", "Temporal could not be reached")
            yield Reason(
                code="fell_back", what=f"It fell back to the broker {age(step.created_at)} ago: {why}"
            )
    if job.status not in FINAL and job.expires_at is not None:
        yield Reason(code="expires", what=f"It is not started any more after {job.expires_at.isoformat()}.")
    if job.status is JobStatus.RETRYING and job.error:
        yield Reason(code="last_error", what=f"Attempt {job.attempt} failed: {_first_line(job.error)}")


def _first_line(text: str | None) -> str:
    return (text or "").partition("\n")[0]
