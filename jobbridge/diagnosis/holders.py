"""Whether somebody runs what is said to run.

A row in `processing` names its worker; the lock on that worker's number tells whether it lives. Of a worker that
lives, a message that it holds is proof enough; where there is none (the task was acknowledged before it ran, or
somebody wrote the row by hand), the worker itself is asked. One that does not answer is believed.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from jobbridge.broker.admin.lookup import find_messages
from jobbridge.core.keys import Engine
from jobbridge.core.status import JobStatus
from jobbridge.diagnosis.findings import Check, age, bad, good, some
from jobbridge.store.jobs.open_jobs import OpenJob, jobs_under_way
from jobbridge.store.workers.workers import WorkerRow

if TYPE_CHECKING:
    from jobbridge.app.application import Celery

#: A dead worker's job begins anew elsewhere, or the reaper ends it, within this time.
_RECOVERY = timedelta(seconds=45)
#: How long a worker may take to answer. Seconds.
_ANSWER = 3.0
#: So many are looked at, of each engine.
_LIMIT = 1000


def check_held(app: Celery, *, apart: float = 2.0) -> list[Check]:
    """Look for jobs in `processing` that nobody runs.

    Args:
        app: Whose.
        apart: Seconds to the second look, if the first one finds something: who was amid two steps has moved on.
    """
    stuck = _stuck(app)
    if stuck:
        time.sleep(apart)
        again = _stuck(app)
        stuck = {job: why for job, why in stuck.items() if job in again}
    if not stuck:
        return [good("held jobs", "every running job has a worker that lives")]
    named = [
        f"{job.key.job_id} ({job.type}, attempt {job.attempt}, silent for {age(job.updated_at)}, "
        f"worker {job.worker or 'unknown'}: {why})"
        for job, why in stuck.items()
    ]
    return [
        bad(
            "held jobs",
            f"stuck in processing: {some(named)}",
            "Run a worker or `jobbridge maintain`: the reaper frees or fails what a dead worker held. "
            "`jobbridge explain JOB` tells more; `jobbridge jobs cancel JOB` gives one up.",
        )
    ]


def _stuck(app: Celery) -> dict[OpenJob, str]:
    """Give the jobs that nobody runs, each with how that is known."""
    jobs = [
        job
        for engine in Engine
        for job in jobs_under_way(app.database, engine, statuses=[JobStatus.PROCESSING], limit=_LIMIT)
    ]
    if not jobs:
        return {}
    workers = app.workers.all()
    held = [job for job in jobs if _is_held(job, workers)]
    dead = _without_holder(app, [job for job in jobs if job not in held], workers)
    stuck = _disowned(app, [job for job in held if job.runner_type is Engine.CELERY], workers)
    living = {worker.engine for worker in workers if worker.is_alive}
    with_message = _with_message(app, dead)
    for job in dead:
        if job.runner_type not in living:
            stuck[job] = f"that worker is gone, and no other of {job.runner_type.value} runs"
        elif job.attempt == 0:
            stuck[job] = "it was never started"
        elif job.updated_at < datetime.now(UTC) - _RECOVERY:
            stuck[job] = "that worker is gone"
        elif with_message is not None and _is_of_this_broker(job) and job not in with_message:
            stuck[job] = "that worker is gone, and no message brings the job on"
    return stuck


def _is_held(job: OpenJob, workers: Sequence[WorkerRow]) -> bool:
    if job.worker_number is None:  # by a release that wrote none, or by hand
        return any(worker.is_alive and worker.name == job.worker for worker in workers)
    return any(worker.is_alive and worker.number == job.worker_number for worker in workers)


def _without_holder(app: Celery, jobs: Sequence[OpenJob], workers: Sequence[WorkerRow]) -> list[OpenJob]:
    """Leave out those of listed workers of whom nobody can tell: after a restart of Postgres all locks are free."""
    listed = {worker.number for worker in workers}
    asked = sorted(listed & {job.worker_number for job in jobs})
    unknown = set(asked) - (app.workers.dead_among(asked) if asked else set())
    return [job for job in jobs if job.worker_number not in unknown]


def _disowned(app: Celery, jobs: Sequence[OpenJob], workers: Sequence[WorkerRow]) -> dict[OpenJob, str]:
    """Give those that their living worker says it does not have."""
    with_message = _with_message(app, jobs)
    if with_message is None:
        return {}
    asked = [job for job in jobs if _is_of_this_broker(job) and job not in with_message]
    answers = _ask(app, asked, workers)
    return {
        job: "that worker lives, and does not have it"
        for job in asked
        if (running := answers.get(_name_of(job, workers))) is not None and job.task_id not in running
    }


def _ask(
    app: Celery, jobs: Sequence[OpenJob], workers: Sequence[WorkerRow]
) -> Mapping[str, Mapping[str, object]]:
    if not jobs:
        return {}
    names = sorted({_name_of(job, workers) for job in jobs})
    inspect = app.control.inspect(destination=names, timeout=_ANSWER, limit=len(names))
    return inspect.query_task(*[job.task_id for job in jobs]) or {}


def _name_of(job: OpenJob, workers: Sequence[WorkerRow]) -> str:
    return next((each.name for each in workers if each.number == job.worker_number), job.worker or "")


def _with_message(app: Celery, jobs: Sequence[OpenJob]) -> set[OpenJob] | None:
    """Give those whose message is in the broker, held or not; None: the broker cannot be asked."""
    if not app.shares_database_with_broker:
        return None
    if not jobs:
        return set()
    ids = [job.task_id for job in jobs]
    messages = app.database.run(lambda own: find_messages(own, ids))
    there = {message.correlation_id for message in messages if message.reason is None}
    return {job for job in jobs if job.task_id in there}


def _is_of_this_broker(job: OpenJob) -> bool:
    return job.runner_type is Engine.CELERY and job.broker is None
