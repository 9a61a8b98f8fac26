"""Where rows and workflows do not agree, both ways: for who looks, nothing is settled here (see `workflows`)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from jobbridge.core.keys import Engine, job_id_for
from jobbridge.core.light import external_id_of
from jobbridge.core.status import JobStatus
from jobbridge.store.jobs.open_jobs import OpenJob, jobs_under_way
from jobbridge.temporal.deliver.delivery import TemporalDelivery
from jobbridge.temporal.reconcile.executions import (
    running_activities,
    running_workflows,
    task_queues_served,
)
from jobbridge.temporal.reconcile.overdue import overdue_workflows
from jobbridge.temporal.reconcile.workflows import WorkflowReconciler
from jobbridge.temporal.wire.contract import MESSAGE_MEMO

if TYPE_CHECKING:
    from jobbridge.app.application import Celery

#: So many rows, and so many workflows, are looked at.
LIMIT = 1000
#: A workflow that a schedule or another client started gets its row from the worker that begins it.
_BEGINS_WITHIN = timedelta(seconds=45)
_UNDER_WAY = (
    JobStatus.QUEUED,
    JobStatus.SCHEDULED,
    JobStatus.RETRYING,
    JobStatus.WAITING,
    JobStatus.PROCESSING,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Drift:
    """What does not agree.

    Attributes:
        rows: Open jobs whose workflow does not run, each with how that is.
        workflows: The ids of running workflows that no row is of; of activities without one, as rows have them.
        overdue: Running workflows whose row has ended, each with how that is; and activities without one.
    """

    rows: tuple[tuple[OpenJob, str], ...]
    workflows: tuple[str, ...]
    overdue: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.rows or self.workflows or self.overdue)

    def also_in(self, later: Drift) -> Drift:
        """Give what is as it was: a row and its workflow end a moment apart, and Temporal lists what it has late."""
        return Drift(
            rows=tuple(row for row in self.rows if row in later.rows),
            workflows=tuple(each for each in self.workflows if each in later.workflows),
            overdue=tuple(each for each in self.overdue if each in later.overdue),
        )


def drift(app: Celery) -> Drift:
    """Compare the open rows that were silent for the longest time, and the running workflows.

    Raises:
        EngineUnavailable: Temporal does not answer.
    """
    delivery = TemporalDelivery(app.settings, app)
    try:
        jobs = jobs_under_way(app.database, Engine.TEMPORAL, statuses=_UNDER_WAY, limit=LIMIT)
        ends = WorkflowReconciler(app, delivery).ends_of(jobs)
        return Drift(
            rows=tuple(
                (job, "none is there" if end.status is None else f"it is {end.status.name}")
                for job, end in ends.items()
            ),
            workflows=_without_row(app, delivery) + _activities_without_row(app, delivery),
            overdue=tuple(map(str, overdue_workflows(app, delivery))),
        )
    finally:
        delivery.close()


def _without_row(app: Celery, delivery: TemporalDelivery) -> tuple[str, ...]:
    executions = running_workflows(app, delivery, limit=LIMIT)
    # A foreign client may have chosen another id than the job's: then the row names it as its external id.
    known: set[UUID] = {
        row.job_id for row in app.jobs.results_of([job_id_for(each.id) for each in executions])
    }
    missing = [
        each
        for each in executions
        if job_id_for(each.id) not in known and app.jobs.find_external(each.id) is None
    ]
    # What this app sent had its row before it had a workflow. Its message need not be opened for that.
    sent = {each.id for each in missing if MESSAGE_MEMO in each.raw_info.memo.fields}
    served = task_queues_served(app)
    late = datetime.now(UTC) - _BEGINS_WITHIN
    return tuple(
        each.id
        for each in missing
        if each.id in sent or each.task_queue not in served or each.start_time < late
    )


def _activities_without_row(app: Celery, delivery: TemporalDelivery) -> tuple[str, ...]:
    late = datetime.now(UTC) - _BEGINS_WITHIN  # as of workflows, those that another client started
    executions = running_activities(app, delivery, limit=LIMIT, before=late)
    known = {row.job_id for row in app.jobs.results_of([job_id_for(each.activity_id) for each in executions])}
    return tuple(
        external_id_of(each.activity_id) for each in executions if job_id_for(each.activity_id) not in known
    )
