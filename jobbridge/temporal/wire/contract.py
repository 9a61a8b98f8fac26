"""What goes over the wire to and from Temporal, so that a client in any language can take part.

Standard library only, no clock, no I/O: the workflow imports this inside Temporal's sandbox. Input is read from
plain JSON, tolerantly: whoever sent it need not know these classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from jobbridge.temporal.wire.fire import Fire
from jobbridge.temporal.wire.references import needs_data

Json = Any  # what json.loads returns

WORKFLOW = "genericJobWorkflow"

EXECUTE_JOB_HANDLER = "executeJobHandler"
UPDATE_JOB_STATUS = "updateJobStatus"
CREATE_JOB_DETAIL = "createJobDetail"
GET_JOB_DATA = "getJobData"

#: In a heartbeat's details: the task began and its author wants it never run twice; and whether it has begun at all.
ACKNOWLEDGED, BEGUN = "acknowledged", "begun"
#: Of which message that is said.
DELIVERY = "delivery"

CANCEL_JOB = "cancelJob"
UPDATE_PROGRESS = "updateProgress"
RESUME_JOB = "resumeJob"
#: `{status, error?, errorType?, result?}`: the job's row has ended so, and its workflow is to end as well.
END_JOB = "endJob"
GET_JOB_STATE = "getJobState"

DEFAULT_TASK_QUEUE = "alga-jobs"

#: Memo key of the Celery message that the job came from, without its arguments; absent in foreign workflows.
MESSAGE_MEMO = "celery"
#: Memo key of what one run hands to the next when the history is cut.
STATE_MEMO = "carried"

#: Memo key of a workflow that a schedule started: which one, and what Temporal was told of it.
SCHEDULE_MEMO = "schedule"
#: Temporal's own search attribute of such a workflow: the nominal instant of its fire.
SCHEDULED_START_TIME = "TemporalScheduledStartTime"

#: In bytes. Payloads beyond this stay in Postgres and are passed by reference: Temporal warns at 256 KiB and refuses at
#: 2 MiB.
PAYLOAD_LIMIT = 256 * 1024
#: Of an error, a reason or a traceback in Temporal, in characters; it is there several times. The row has all of it.
TEXT_LIMIT = 20_000


def cut(text: str) -> str:
    """Leave out of a text what Temporal could not carry: halves of characters are escaped, much too much is cut."""
    text = text.encode(errors="backslashreplace").decode()
    if len(text) <= TEXT_LIMIT:
        return text
    half = TEXT_LIMIT // 2
    return f"{text[:half]}\n… {len(text) - 2 * half} characters are left out, the job's row has them …\n{text[-half:]}"


def cut_name(text: str) -> str:
    """Give no more of a name than Temporal's summaries hold, which is 400 bytes."""
    return text.encode()[:200].decode(errors="ignore")


#: Stands for a result that is too large.
RESULT_REFERENCE: Mapping[str, str] = {"$ref": "jobs.result"}
#: Stands for a job's data that is too large.
METADATA_REFERENCE: Mapping[str, str] = {"$ref": "jobs.metadata.data"}

#: A worker that says nothing for so long is dead. The activity tells that it lives every second.
HEARTBEAT_TIMEOUT = timedelta(seconds=8)
#: The pool enforces time limits; Temporal's are the backstop. Room for waiting in the worker (rate limits).
_TIME_LIMIT_GRACE = timedelta(minutes=15)
_NO_LIMIT = timedelta(days=3650)

_LONGEST_LIMIT = 10 * 365 * 86_400  # seconds


class InvalidJobInput(ValueError):
    """The workflow's input does not follow the contract."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JobInput:
    """The workflow's input: `{jobId, jobName, tenantId, data}`."""

    job_id: str
    job_name: str
    tenant_id: str | None
    data: Json = None

    def to_json(self) -> dict[str, Json]:
        return {"jobId": self.job_id, "jobName": self.job_name, "tenantId": self.tenant_id, "data": self.data}

    @classmethod
    def from_json(cls, document: Json, *, workflow_id: str) -> JobInput:
        """Read it.

        Args:
            document: As it arrived.
            workflow_id: Names the job when the input does not.

        Raises:
            InvalidJobInput: It is no object, or names no handler.
        """
        if not isinstance(document, dict):
            raise InvalidJobInput(
                f"The input must be an object with jobId, jobName, tenantId and data, not {document!r}."
            )
        name = document.get("jobName")
        if not isinstance(name, str) or not name:
            raise InvalidJobInput(f"The input names no handler: jobName is {name!r}.")
        tenant = document.get("tenantId")
        return cls(
            job_id=str(document.get("jobId") or workflow_id),
            job_name=name,
            tenant_id=str(tenant) if tenant else None,
            data=document.get("data"),
        )


def why_not_carried(document: Json) -> str | None:
    """Tell why no job can have this input, which `JobInput` reads; None: one can."""
    if not isinstance(tenant := document.get("tenantId"), str | None):
        return f"The input's tenantId is {tenant!r}, which is no text."
    if isinstance(document.get("jobId"), list | dict):
        return f"The input's jobId is {document['jobId']!r}, which is no text."
    for name in ("jobId", "jobName", "tenantId"):
        if "\x00" in str(document.get(name) or ""):
            return f"The input's {name} holds a NUL, which Postgres cannot."
    return None


def message_of(document: Json) -> dict[str, Json] | None:
    """Give the message that came with a workflow, or with a signal; None: none came.

    Raises:
        InvalidJobInput: It is none that the workflow can carry.
    """
    if document is None:
        return None
    if not isinstance(document, dict):
        raise InvalidJobInput(f"The message must be an object, not {document!r}.")
    try:
        instant_of(document.get("eta"))
    except (TypeError, ValueError, OverflowError):
        raise InvalidJobInput(f"The message's eta is {document['eta']!r}, which is no instant.") from None
    limits = document.get("timelimit") or [None]
    hard = (limits[0] or 0) if isinstance(limits, list) else None
    if not isinstance(hard, int | float) or not 0 <= hard <= _LONGEST_LIMIT:
        raise InvalidJobInput(f"The message's timelimit is {limits!r}.")
    if not isinstance(document.get("priority") or 0, int | float):
        raise InvalidJobInput(f"The message's priority is {document['priority']!r}.")
    return document


def wakes(waiting: dict[str, Json] | None, came: dict[str, Json] | None) -> bool:
    """Whether a message that came lets one go on that waits: for any, or for its own time, which is now then."""
    told, other = waiting or {}, came or {}
    return bool(told.get("waits")) or ("delivery" in told and told["delivery"] == other.get("delivery"))


def instant_of(text: str | None) -> datetime | None:
    """Read an instant, as Celery does: without a zone it is UTC (celery 5.7, utils/time.py, `maybe_make_aware`).

    Raises:
        ValueError, TypeError, OverflowError: It is none between the years 1 and 9999.
    """
    if not text:
        return None
    at = datetime.fromisoformat(text)
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)


@dataclass(frozen=True, kw_only=True, slots=True)
class JobResult:
    """The workflow's result: `{success, jobId, error?, result?, completedAt}`. A failed job fails its workflow."""

    success: bool
    job_id: str
    completed_at: str
    error: str | None = None
    result: Json = None

    def to_json(self) -> dict[str, Json]:
        document = {"success": self.success, "jobId": self.job_id, "completedAt": self.completed_at}
        if self.error is not None:
            document["error"] = self.error
        if self.result is not None:
            document["result"] = self.result
        return document


class OutcomeKind(StrEnum):
    """How an execution ended, other than by failing: a failure fails the activity."""

    COMPLETED = "completed"
    CONTINUED = "continued"  # the job sent itself again: retry, replace
    HANDED_OVER = "handed_over"  # ignored, or something else took its place: nothing more to do here
    REQUEUED = "requeued"  # the handler asked to be run again
    LOST = "lost"  # the pool process that ran it is gone
    RELEASED = "released"  # the worker shut down before it began
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    WAITING = "waiting"  # for its children; a signal brings the message by which it goes on
    SKIPPED = "skipped"  # what a schedule started, and is no fire of it


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """The result of `executeJobHandler`.

    Attributes:
        message: For CONTINUED: the message to execute next, in the form of `ExecuteOrder.message`.
        attempt: The attempt's number in the row, where it is known.
    """

    kind: OutcomeKind
    result: Json = None
    error: str | None = None
    message: dict[str, Json] | None = None
    attempt: int | None = None

    def to_json(self) -> dict[str, Json]:
        document = {
            "outcome": self.kind.value,
            "result": self.result,
            "error": None if self.error is None else cut(self.error),
            "message": self.message,
            "attempt": self.attempt,
        }
        return {name: value for name, value in document.items() if value is not None}

    @classmethod
    def from_json(cls, document: Json) -> Outcome:
        return cls(
            kind=OutcomeKind(document["outcome"]),
            result=document.get("result"),
            error=document.get("error"),
            message=document.get("message"),
            attempt=document.get("attempt"),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class ExecuteOrder:
    """The input of `executeJobHandler`.

    Attributes:
        message: The Celery message as jobbridge.core.envelope writes it, with or without its arguments; None: to be
            made from the job's name and data.
        is_redelivery: An execution of this message began before.
        give_up: Do not run it: fail it, for this reason.
        fire: A schedule started it.
        handover: Without a message: the run that began the job, if it is not this one.
    """

    job: JobInput
    message: dict[str, Json] | None = None
    is_redelivery: bool = False
    give_up: str | None = None
    fire: Fire | None = None
    handover: str | None = None

    def to_json(self) -> dict[str, Json]:
        document = self.job.to_json()
        if self.message is not None:
            document["message"] = self.message
        if not needs_data(self.message):
            document["data"] = None  # else the history has it once more for each execution
        if self.is_redelivery:
            document["isRedelivery"] = True
        if self.give_up is not None:
            document["giveUp"] = self.give_up
        if self.fire is not None:
            document["fire"] = self.fire.to_json()
        if self.handover is not None:
            document["handover"] = self.handover
        return document

    @classmethod
    def from_json(cls, document: Json, *, workflow_id: str) -> ExecuteOrder:
        return cls(
            job=JobInput.from_json(document, workflow_id=workflow_id),
            message=document.get("message"),
            is_redelivery=bool(document.get("isRedelivery")),
            give_up=document.get("giveUp"),
            fire=Fire.from_json(document["fire"]) if document.get("fire") else None,
            handover=document.get("handover"),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class StatusUpdate:
    """The input of `updateJobStatus`: what happened to a job outside of an execution.

    Attributes:
        status: `cancelled`, `expired`, `failed`, or `processing` with `progress`.
    """

    job_id: str
    tenant_id: str | None
    status: str
    reason: str | None = None
    cancelled_by: str | None = None
    progress: float | None = None

    def to_json(self) -> dict[str, Json]:
        document = {
            "jobId": self.job_id,
            "tenantId": self.tenant_id,
            "status": self.status,
            "reason": self.reason,
            "cancelledBy": self.cancelled_by,
            "progress": self.progress,
        }
        return {name: value for name, value in document.items() if value is not None}

    @classmethod
    def from_json(cls, document: Json) -> StatusUpdate:
        return cls(
            job_id=str(document["jobId"]),
            tenant_id=document.get("tenantId"),
            status=str(document["status"]),
            reason=_storable(document.get("reason")),
            cancelled_by=_storable(document.get("cancelledBy")),
            progress=document.get("progress"),
        )


def _storable(text: str | None) -> str | None:
    return None if text is None else str(text).replace("\x00", "")  # Postgres has no NUL


def longest_run(hard_limit: float | None) -> timedelta:
    """Give Temporal's limit for an execution whose pool ends it after so many seconds; None: it does not."""
    return timedelta(seconds=hard_limit) + _TIME_LIMIT_GRACE if hard_limit else _NO_LIMIT


def temporal_priority(priority: int | None) -> int:
    """Give Temporal's priority key (1 first … 5 last) of Celery's priority (9 first … 0 last)."""
    return 5 - max(0, min(9, priority or 0)) // 2


def was_acknowledged(heartbeat: Sequence[Any], delivery: str | None) -> bool:
    """Tell from the last details of an activity whether a message's task began, and must not be run twice.

    Those of a release before this one do not say of which message they are.

    Args:
        delivery: Of the message; None: whichever they are of.
    """
    details = heartbeat[0] if heartbeat and isinstance(heartbeat[0], dict) else {}
    is_of_it = delivery is None or details.get(DELIVERY, delivery) == delivery
    return bool(details.get(ACKNOWLEDGED)) and is_of_it


def has_begun(heartbeat: Sequence[Any]) -> bool:
    """Tell from the last details of an activity whether its job had begun; one that says nothing had."""
    return not (heartbeat and isinstance(heartbeat[0], dict) and heartbeat[0].get(BEGUN) is False)
