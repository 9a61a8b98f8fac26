"""What suspended jobs wait for, and whether something will wake them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from shlex import quote
from typing import TYPE_CHECKING

from jobbridge.broker.admin.lookup import find_messages
from jobbridge.core.keys import Engine
from jobbridge.core.status import JobStatus
from jobbridge.diagnosis.findings import Check, age, bad, duration, good, some
from jobbridge.store.jobs.open_jobs import jobs_under_way
from jobbridge.store.waits.queries import Wait, WaitQueries

if TYPE_CHECKING:
    from jobbridge.app.application import Celery
    from jobbridge.store.jobs.rows import JobRow

#: What is due is promoted within a moment, if anybody is there to do it.
_PATIENCE = timedelta(minutes=1)
#: So many are looked at.
_LIMIT = 1000


def wait_of(app: Celery, job: JobRow) -> Wait | None:
    """Give what a job waits for; None: it is not suspended."""
    if job.started_at is None or job.status not in (JobStatus.SCHEDULED, JobStatus.WAITING):
        return None  # it has not begun, or goes on
    wait = WaitQueries(app.database).wait_of(job.key)
    if wait is not None or job.status is JobStatus.WAITING:
        return wait
    return Wait(  # a sleep has its time in the job's row, and nothing else
        tenant=job.tenant, job_id=job.job_id, kind="sleep", name="", key=None, until=job.run_at, pending=0,
        since=job.updated_at,
    )  # fmt: skip


def told(wait: Wait) -> Iterator[tuple[str, str, str]]:
    """Say what a job waits for, since when and until when: code, words, and what to do."""
    since, until = f"for {age(wait.since)}", _until(wait)
    match wait.kind:
        case "sleep":
            yield "sleeping", f"It sleeps {until or 'without an end'}, and has slept {since}.", ""
        case "event":
            by = f" by the key {wait.key!r}" if wait.key is not None else ""
            what = f"It waits for the event {wait.name!r}{by} {since}, {until or 'without a time-out'}."
            yield "waits_for_event", what, f"Send it with `{send_command(wait)}`."
        case _:
            many = "1 job" if wait.pending == 1 else f"{wait.pending or 0} jobs"
            yield "waits_for_call", f"It waits {since} for {many} that it called.", ""
    if is_overdue(wait):
        assert wait.until is not None
        yield (
            "wait_overdue",
            f"That was over {age(wait.until)} ago, and nothing has woken it.",
            "Run a worker of its engine: it takes what is due. `jobbridge doctor` says whether one is there.",
        )


def is_overdue(wait: Wait) -> bool:
    """Whether the end of a wait is so long past that something must be wrong."""
    return wait.until is not None and wait.until < datetime.now(UTC) - _PATIENCE


def send_command(wait: Wait) -> str:
    """Give the command that sends what is waited for."""
    return f"jobbridge events send {quote(wait.name)} --job {wait.job_id} --payload '{{}}'"


def check_waits(app: Celery) -> list[Check]:
    """Look for suspended jobs that nothing will wake: over their time, or without a message."""
    overdue = WaitQueries(app.database).overdue(_PATIENCE)
    named = [f"{wait.job_id} ({wait.kind}, over since {age(wait.until)})" for wait in overdue if wait.until]
    lost = _without_message(app)
    if not named and not lost:
        return [good("waits", "what sleeps or waits will be woken")]
    parts = [f"not woken in time: {some(named)}"] if named else []
    parts += [f"their message is not in the broker: {some(lost)}"] if lost else []
    return [
        bad(
            "waits",
            "; ".join(parts),
            "Run a worker or `jobbridge maintain`; `jobbridge explain JOB` tells more.",
        )
    ]


def _without_message(app: Celery) -> list[str]:
    if not app.shares_database_with_broker:
        return []
    jobs = jobs_under_way(app.database, Engine.CELERY, statuses=[JobStatus.WAITING], limit=_LIMIT)
    if not jobs:
        return []
    ids = [job.task_id for job in jobs]
    found = {
        each.correlation_id
        for each in app.database.run(lambda own: find_messages(own, ids))
        if not each.reason
    }
    missing = [job for job in jobs if job.task_id not in found]
    if not missing:
        return []
    # One may have been woken between the two statements: only what is waiting still is missed.
    again = {
        job.key
        for job in jobs_under_way(app.database, Engine.CELERY, statuses=[JobStatus.WAITING], limit=_LIMIT)
    }
    return [f"{job.key.job_id} ({job.type})" for job in missing if job.key in again]


def _until(wait: Wait) -> str:
    if wait.until is None:
        return ""
    at = f"{wait.until.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
    ahead = wait.until - datetime.now(UTC)
    return f"until {at}, in {duration(ahead)}" if ahead > timedelta() else f"until {at}"
