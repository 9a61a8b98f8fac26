"""Whether what keeps the books straight does its work: services, drift."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from jobbridge.diagnosis.findings import Check, age, some
from jobbridge.errors import JobBridgeError
from jobbridge.store.services import services

if TYPE_CHECKING:
    from jobbridge.app.application import Celery

#: The slowest service runs each minute; somebody leads each while any worker lives.
_SERVICES_REST = timedelta(minutes=15)


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


def check_drift(app: Celery, *, apart: float = 3.0) -> list[Check]:
    """Compare rows and workflows, both ways; only where Temporal answers.

    Args:
        app: Whose.
        apart: Seconds to the second look, if the first one finds something: only what both found is told.
    """
    from jobbridge.temporal.drift import drift

    try:
        found = drift(app)
        if found:
            time.sleep(apart)
            found = found.also_in(drift(app))
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
