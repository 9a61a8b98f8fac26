"""Whether what keeps the books straight does its work: jobs of dead workers, services, drift."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from jobbridge.diagnosis.findings import Check, age, some
from jobbridge.store.health import HealthStore, HeldJob
from jobbridge.store.workers import WorkerRow

if TYPE_CHECKING:
    from jobbridge.app.application import Celery

#: The reaper looks twice, a quarter of a minute apart; what is held longer by nobody is stuck.
_REAPERS_TIME = timedelta(seconds=45)


def check_held(app: Celery) -> list[Check]:
    """Look for jobs in `processing` whose worker is gone."""
    workers = app.workers.all()
    held = HealthStore(app.database).held(older_than=_REAPERS_TIME)
    stuck = [job for job in held if not _is_held(job, workers)]
    if not stuck:
        return [Check(name="held jobs", is_good=True, found="every running job has a worker that lives")]
    named = [
        f"{job.key.job_id} ({job.task}, attempt {job.attempt}, silent for {age(job.updated_at)}, "
        f"worker {job.worker or 'unknown'})"
        for job in stuck
    ]
    return [
        Check(
            name="held jobs",
            is_good=False,
            found=f"stuck in processing, with no worker that lives: {some(named)}",
            hint="Run a worker or `jobbridge maintain`: the reaper frees or fails them. `jobbridge explain JOB` tells "
            "more; `jobbridge jobs cancel JOB` gives one up.",
        )
    ]


def _is_held(job: HeldJob, workers: Sequence[WorkerRow]) -> bool:
    if job.worker_number is None:  # by a release that wrote none, or by hand
        return any(worker.is_alive and worker.name == job.worker for worker in workers)
    return any(worker.is_alive and worker.number == job.worker_number for worker in workers)
