"""Where rows and workflows do not agree, both ways: for who looks, nothing is settled here (see `reconciling`)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from temporalio.client import Client

from jobbridge.core.keys import Engine, job_id_for
from jobbridge.store.unattended import BEGINNING, OpenJob, open_jobs
from jobbridge.temporal.contract import WORKFLOW
from jobbridge.temporal.delivery import TemporalDelivery
from jobbridge.temporal.reconciling import WorkflowReconciler

if TYPE_CHECKING:
    from jobbridge.app.application import Celery

#: So many rows, and so many workflows, are looked at.
LIMIT = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class Drift:
    """What does not agree.

    Attributes:
        rows: Open jobs whose workflow does not run, each with how that is.
        workflows: The ids of running workflows that no row is of.
    """

    rows: tuple[tuple[OpenJob, str], ...]
    workflows: tuple[str, ...]


def drift(app: Celery, *, quiet: timedelta) -> Drift:
    """Compare the oldest open rows and the running workflows.

    Args:
        quiet: Leave out what something happened to within this time.

    Raises:
        EngineUnavailable: Temporal does not answer.
    """
    delivery = TemporalDelivery(app.settings, app)
    try:
        jobs = open_jobs(app.database, Engine.TEMPORAL, older_than=quiet, after=BEGINNING, limit=LIMIT)
        ends = WorkflowReconciler(app, delivery).ends_of(jobs)
        return Drift(
            rows=tuple(
                (job, "none is there" if end.status is None else f"it is {end.status.name}")
                for job, end in ends.items()
            ),
            workflows=_without_row(app, delivery, quiet),
        )
    finally:
        delivery.close()


def _without_row(app: Celery, delivery: TemporalDelivery, quiet: timedelta) -> tuple[str, ...]:
    async def running(client: Client) -> list[str]:
        query = (
            f"WorkflowType = '{WORKFLOW}' AND ExecutionStatus = 'Running' "
            f"AND StartTime < '{(datetime.now(UTC) - quiet).isoformat()}'"
        )
        return [found.id async for found in client.list_workflows(query, limit=LIMIT)]

    ids = delivery.ask(running)
    # A foreign client may have chosen another id than the job's: then the row names it as its external id.
    known: set[UUID] = {
        row.job_id for row in app.jobs.results_of([job_id_for(workflow_id) for workflow_id in ids])
    }
    missing = [workflow_id for workflow_id in ids if job_id_for(workflow_id) not in known]
    return tuple(workflow_id for workflow_id in missing if app.jobs.find_external(workflow_id) is None)
