"""Whether what keeps the books straight does its work: services, counts, drift."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from typing import TYPE_CHECKING

from jobbridge.diagnosis.findings import Check, age, bad, good, some
from jobbridge.errors import JobBridgeError
from jobbridge.store.counts.counts import CountStore
from jobbridge.store.counts.estimates import fewest_jobs
from jobbridge.store.workers.services import ServiceRow, services

if TYPE_CHECKING:
    from jobbridge.app.application import Celery

#: The slowest service runs every ten minutes.
_SERVICES_REST = timedelta(minutes=15)
#: Each is written down once a minute while its worker leads it.
_SILENT = timedelta(minutes=5)
#: Postgres only estimates: fewer jobs than this, or than a fifth of all, it may be wrong about.
_SURELY = 10_000


def check_services(app: Celery) -> list[Check]:
    """Look at the last runs of the services that keep the books straight.

    A row that was not touched for long is of a service that nobody offers any more (the engine was given up, all
    workers are stopped), unless the worker that ran it last lives.
    """
    rows = services(app.database)
    if not rows:
        return []
    living = {worker.name for worker in app.workers.alive()}
    lately = datetime.now(UTC) - _SERVICES_REST
    troubles = [
        trouble for row in rows if (trouble := _trouble(row, is_held=row.holder in living, lately=lately))
    ]
    told = "; ".join(
        f"{row.name} {age(row.last_finished) + ' ago' if row.last_finished else 'never ended'} on {row.holder}"
        for row in rows
    )
    if not troubles:
        return [good("services", told)]
    return [
        bad(
            "services",
            some(troubles),
            "Read the log of the worker that is named, mend what it says; `jobbridge maintain` runs them alone.",
        )
    ]


def _trouble(row: ServiceRow, *, is_held: bool, lately: datetime) -> str | None:
    if row.last_error and (is_held or (row.failed_at is not None and row.failed_at > lately)):
        return f"{row.name} failed: {row.last_error}"
    if row.last_started is None or not (is_held or row.last_started > lately):
        return None
    if row.is_hanging:
        return f"{row.name} began {age(row.last_started)} ago on {row.holder} and has not ended"
    if is_held and row.last_started < datetime.now(UTC) - _SILENT:
        return f"{row.name} ran last {age(row.last_started)} ago, and its worker {row.holder} lives"
    return None


def check_counts(app: Celery) -> list[Check]:
    """Compare the kept counts with Postgres's estimate: rows that came without triggers are not in them.

    Only what is missing is told: on Citus the estimate is of the coordinator, which has no rows.
    """
    counted, there = sum(CountStore(app.database).totals().values()), fewest_jobs(app.database)
    if there is None or there - counted <= max(_SURELY, there // 5):
        return [good("counts", f"{counted} jobs are counted")]
    return [
        bad(
            "counts",
            f"{counted} jobs are counted, and Postgres estimates {there}: the others were written without "
            "triggers (session_replication_role, a restore, replication)",
            "Run `jobbridge jobs recount`.",
        )
    ]


def check_drift(app: Celery, *, apart: float = 3.0) -> list[Check]:
    """Compare rows and workflows, both ways; only where Temporal answers.

    Args:
        app: Whose.
        apart: Seconds to the second look, if the first one finds something: only what both found is told.
    """
    if find_spec("temporalio") is None:
        return []  # there is no Temporal here, and no workflow
    from jobbridge.temporal.reconcile.drift import drift

    try:
        found = drift(app)
        if found:
            time.sleep(apart)
            found = found.also_in(drift(app))
    except (JobBridgeError, OSError) as error:
        return [bad("drift", f"cannot be told: {error}", "Run it again.")]
    troubles = []
    if found.rows:
        named = [f"{job.key.job_id} ({job.type}, {job.status.value}; {how})" for job, how in found.rows]
        troubles.append(f"row without a running workflow: {some(named)}")
    if found.workflows:
        troubles.append(f"workflow without a row: {some(list(found.workflows))}")
    if found.overdue:
        troubles.append(f"workflow that runs though its row has ended: {some(list(found.overdue))}")
    if not troubles:
        return [good("drift", "rows and workflows agree")]
    return [
        bad(
            "drift",
            "; ".join(troubles),
            "Run a Temporal worker: its reconciler settles such rows, ends workflows as their rows have ended, and a "
            "workflow that runs makes its own row. "
            "It may be of another installation, in this namespace and with the same queue names: look at it first "
            "(`temporal workflow describe -w ID`).",
        )
    ]
