"""What the workflow is told of an execution: what the worker saw, and what the job's row says.

The pool child wrote result, retry and cancellation into the row; the worker's parent saw only an acknowledgement. So
the row is read once, when the execution has ended. Trouble with the database must not fail a job that worked:
its result is then unknown to Temporal, and a warning says so. Only a retry must be read, because it is in the row
and nowhere else: that waits for the database.
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any
from uuid import UUID

from celery.exceptions import ImproperlyConfigured
from temporalio.exceptions import ApplicationError

from jobbridge.core.events import Accepted
from jobbridge.core.keys import Engine
from jobbridge.core.shown import shown
from jobbridge.core.status import WAITING, JobStatus
from jobbridge.errors import DatabaseError
from jobbridge.temporal.wire.contract import (
    PAYLOAD_LIMIT,
    RESULT_REFERENCE,
    Outcome,
    OutcomeKind,
    cut,
    cut_name,
)
from jobbridge.temporal.wire.messages import continuation, size_of
from jobbridge.temporal.worker.execution import Execution, Settlement, SettlementKind

if TYPE_CHECKING:
    from jobbridge.app.application import Celery
    from jobbridge.store.jobs.queries import JobRow

logger = logging.getLogger(__name__)


class JobFailed(ApplicationError):
    """The handler failed for good: fails the activity, and with it the workflow.

    Attributes:
        handler_traceback: Shown as the failure's stack trace; see client.TracebackFailureConverter.
    """

    def __init__(self, settlement: Settlement) -> None:
        traceback = None if settlement.traceback is None else cut(settlement.traceback)
        details = [{"traceback": traceback}] if traceback else []
        error = cut(settlement.error or "The job failed.")
        kind = None if settlement.error_type is None else cut_name(settlement.error_type)
        super().__init__(error, *details, type=kind, non_retryable=True)
        self.handler_traceback = traceback


class ContinuationUnread(Exception):
    """The row that holds the next message cannot be read now."""


def outcome_of(app: Celery, execution: Execution, settlement: Settlement) -> Outcome:
    """Give the outcome, reading the row.

    Raises:
        JobFailed: The job failed for good.
        ContinuationUnread: It goes on, and the database is away. Ask again.
    """
    row = _row(app, execution, settlement)
    attempt = row.attempt if row else None
    if row is not None and row.status is JobStatus.CANCELLED:
        return Outcome(kind=OutcomeKind.CANCELLED, error=row.cancel_reason, attempt=attempt)
    if row is not None and row.status is JobStatus.EXPIRED:
        return Outcome(kind=OutcomeKind.EXPIRED, attempt=attempt)
    if row is not None and row.status is JobStatus.SKIPPED:
        return Outcome(kind=OutcomeKind.SKIPPED, error=row.error, attempt=attempt)
    match settlement.kind:
        case SettlementKind.SUCCEEDED if row is not None and row.status is JobStatus.FAILED:
            raise JobFailed(_as_recorded(row))  # of a batch, which is acknowledged all the same
        case SettlementKind.SUCCEEDED:
            return Outcome(kind=OutcomeKind.COMPLETED, result=_result(app, execution, row), attempt=attempt)
        case SettlementKind.RETRIED:
            return _continued(app, execution, row, error=settlement.error)
        case SettlementKind.IGNORED:
            return _ignored(app, execution, row)
        case SettlementKind.FAILED:
            raise JobFailed(settlement)
        case SettlementKind.REVOKED:
            return Outcome(kind=OutcomeKind.CANCELLED, error=settlement.error, attempt=attempt)
        case SettlementKind.EXPIRED:
            return Outcome(kind=OutcomeKind.EXPIRED, error=settlement.error, attempt=attempt)
        case SettlementKind.REQUEUED:
            return Outcome(kind=OutcomeKind.REQUEUED, error=settlement.error, attempt=attempt)
        case SettlementKind.LOST:
            return Outcome(kind=OutcomeKind.LOST, error=settlement.error, attempt=attempt)
        case SettlementKind.RELEASED:
            return Outcome(kind=OutcomeKind.RELEASED, attempt=attempt)


def _row(app: Celery, execution: Execution, settlement: Settlement) -> JobRow | None:
    try:
        return app.jobs.get(execution.key)
    except DatabaseError as error:
        if settlement.kind in {SettlementKind.RETRIED, SettlementKind.IGNORED}:
            raise ContinuationUnread(str(error)) from error
        logger.warning("temporal.result_not_read", extra={"job_id": execution.task_id, "error": str(error)})
        return None


def _ignored(app: Celery, execution: Execution, row: JobRow | None) -> Outcome:
    """The attempt did not start, or wanted to leave no result; what the row says of an earlier attempt counts."""
    if row is not None and row.status is JobStatus.COMPLETED:
        result = _result(app, execution, row)
        return Outcome(kind=OutcomeKind.COMPLETED, result=result, attempt=row.attempt)
    if row is not None and row.status is JobStatus.FAILED:
        raise JobFailed(_as_recorded(row))
    return _continued(app, execution, row, error=None)


def _as_recorded(row: JobRow) -> Settlement:
    name, _, text = (row.error or "").partition(": ")
    kind = SettlementKind.FAILED
    return Settlement(kind=kind, error=text or name, error_type=name, traceback=row.traceback)


def _continued(app: Celery, execution: Execution, row: JobRow | None, *, error: str | None) -> Outcome:
    """The job went on elsewhere, perhaps as a further message for this very workflow."""
    if row is not None and row.status is JobStatus.PROCESSING and row.delivery is None:
        return Outcome(kind=OutcomeKind.WAITING, attempt=row.attempt)  # see events.AwaitsChildren
    handed_over = Outcome(kind=OutcomeKind.HANDED_OVER, attempt=row.attempt if row else None)
    if row is None or row.status not in WAITING or row.runner_type is not Engine.TEMPORAL:
        return handed_over
    if row.delivery is None or str(row.delivery) == execution.delivery:
        return handed_over
    try:
        stored = app.jobs.delivery_of(execution.key)
        if stored is None or stored.message is None or stored.delivery is None:
            return handed_over
        if execution.light is not None and stored.message.get("waits"):
            # Nobody wakes an activity that has ended: the relay starts a workflow, which waits.
            return Outcome(kind=OutcomeKind.WAITING, attempt=row.attempt)
        recorded = app.recorder.record(_accepted(execution, stored.delivery))
        if stored.message.get("eta") and not stored.message.get("waits"):
            # Who woke it before this was recorded said so in its message alone: the row was owed, and now is not.
            stored = app.jobs.delivery_of(execution.key) or stored
    except DatabaseError as trouble:
        raise ContinuationUnread(str(trouble)) from trouble
    message = continuation(stored.message)
    if recorded.applied and recorded.status is not JobStatus.WAITING:
        # What it waits for came before this: the relay, which would tell the workflow, has nothing to do any more.
        message = {name: value for name, value in message.items() if name != "waits"}
        if stored.message.get("waits"):
            message.pop("eta", None)
    return Outcome(kind=OutcomeKind.CONTINUED, message=message, error=error, attempt=row.attempt)


def _accepted(execution: Execution, delivery: UUID) -> Accepted:
    return Accepted(
        key=execution.key,
        delivery=delivery,
        engine=Engine.TEMPORAL,
        external_id=execution.workflow_id,
        external_run_id=execution.run_id,
        is_alone=True,
    )


def _result(app: Celery, execution: Execution, row: JobRow | None) -> Any:
    result = row.result if row is not None else None
    if result is None and app.backend.as_uri() != "jobbridge://":
        result = _foreign_result(app, execution)
    try:
        return dict(RESULT_REFERENCE) if size_of(result) > PAYLOAD_LIMIT else json.loads(json.dumps(result))
    except (TypeError, ValueError, RecursionError):
        return shown(result)


def _foreign_result(app: Celery, execution: Execution) -> Any:
    request = execution.request
    if request is None or request.ignore_result:
        return None
    try:
        return app.backend.get_task_meta(execution.task_id).get("result")
    except (NotImplementedError, ImproperlyConfigured, AttributeError):
        return None  # results are disabled
    except Exception as error:  # a backend may raise anything; the job worked
        logger.warning("temporal.result_not_read", extra={"job_id": execution.task_id, "error": repr(error)})
        return None
