"""Whether what keeps the books straight does its work: jobs of dead workers, services, drift."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from jobbridge.diagnosis.findings import Check, age, some
from jobbridge.errors import JobBridgeError
from jobbridge.store.health import HealthStore, HeldJob
from jobbridge.store.services import services
from jobbridge.store.workers import WorkerRow

if TYPE_CHECKING:
    from jobbridge.app.application import Celery

#: The reaper looks twice, a quarter of a minute apart; what is held longer by nobody is stuck.
_REAPERS_TIME = timedelta(seconds=45)
#: The slowest service runs each minute; somebody leads each while any worker lives.
_SERVICES_REST = timedelta(minutes=15)


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


def check_services(app: Celery) -> list[Check]:
    """Look at the last runs of the services that keep the books straight."""
    rows = services(app.database)
    troubles = [f"{row.name} failed: {row.last_error}" for row in rows if row.last_error]
    troubles += [
        f"{row.name} began {age(row.last_started)} ago on {row.holder} and has not ended"
        for row in rows
        if row.is_hanging and row.last_started is not None
    ]
    if app.workers.alive():
        troubles += [
            f"{row.name} ran last {age(row.last_finished)} ago"
            for row in rows
            if row.last_finished is not None and row.last_finished < datetime.now(UTC) - _SERVICES_REST
        ]
    if not rows:
        return []
    told = "; ".join(
        f"{row.name} {age(row.last_finished) + ' ago' if row.last_finished else 'never ended'} on {row.holder}"
        for row in rows
    )
    if not troubles:
        return [Check(name="services", is_good=True, found=told)]
    return [
        Check(
            name="services",
            is_good=False,
            found=some(troubles),
            hint="Read the log of the worker that is named, mend what it says; `jobbridge maintain` runs them alone.",
        )
    ]


def check_drift(app: Celery, *, quiet: timedelta = _REAPERS_TIME) -> list[Check]:
    """Compare rows and workflows, both ways; only where Temporal answers."""
    from jobbridge.temporal.drift import drift

    try:
        found = drift(app, quiet=quiet)
    except (JobBridgeError, OSError) as error:
        return [Check(name="drift", is_good=False, found=f"cannot be told: {error}", hint="Run it again.")]
    troubles = []
    if found.rows:
        named = [f"{job.key.job_id} ({job.type}, {job.status.value}; {how})" for job, how in found.rows]
        troubles.append(f"row without a running workflow: {some(named)}")
    if found.workflows:
        troubles.append(f"workflow without a row: {some(list(found.workflows))}")
    if not troubles:
        return [Check(name="drift", is_good=True, found="rows and workflows agree")]
    return [
        Check(
            name="drift",
            is_good=False,
            found="; ".join(troubles),
            hint="Run a Temporal worker: its reconciler settles such rows, and a workflow that runs makes its own row. "
            "One that nobody wants is ended with `temporal workflow terminate -w ID`.",
        )
    ]
