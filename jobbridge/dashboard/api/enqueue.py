"""Sending jobs: by name, with options, and once only if the request has an idempotency key.

A key is decided in the transaction that makes the job (see `jobbridge.store.access.idempotency`). On CE row and
message are that transaction. On EE the row is; the relay brings it to Temporal a moment later.
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

from fastapi import Header, Response
from kombu.exceptions import EncodeError, OperationalError
from pydantic import BaseModel, ConfigDict, Field, model_validator
from starlette.exceptions import HTTPException

from jobbridge.app.publish.commands import find_task
from jobbridge.core.access import Role
from jobbridge.core.enqueue import SINGLETON_KEY_LIMIT, Outcome, SingletonPolicy
from jobbridge.core.handlers import handler_of
from jobbridge.core.keys import Engine, JobKey, TenantId
from jobbridge.dashboard.access.bodies import STORABLE
from jobbridge.dashboard.access.request_context import POST, RequestContext, storable
from jobbridge.dashboard.api.documents.responses import SentJob, Task, Tasks
from jobbridge.dashboard.api.documents.serializers import job_answer
from jobbridge.dashboard.api.documents.timestamps import Instant
from jobbridge.dashboard.api.rules import PREFIX, ApiRule, Asked
from jobbridge.dashboard.errors import Refused
from jobbridge.errors import JobBridgeError, PayloadTooLarge, UnknownHandler, UnsupportedOption
from jobbridge.store.access import idempotency
from jobbridge.store.access.idempotency import RequestKey

if TYPE_CHECKING:
    from jobbridge.app.publish.commands import JobHandle

#: Tasks of Celery and of ours, which are no work of anybody's.
_INTERNAL = ("celery.", "jobbridge.")
#: What the metadata of a row says of the job itself: from there its data is taken when it runs again.
OWN_METADATA = frozenset({"data", "argsrepr", "kwargsrepr", "retry_of", "schedule", "traceparent", "fan_out"})
#: Of each, the second must not be there beside the first.
_APART = (("run_at", "countdown"), ("expires_at", "expires_in"), ("data", "args"), ("data", "kwargs"))
_A_YEAR = 366 * 24 * 3600
_THERE = {"not": {"type": "null"}}


def _described(schema: dict[str, Any]) -> None:
    """Say in the description what `NewJob` refuses, so that clients can be made that do not send it."""
    month = {"periodStart": "2026-10-01", "periodEnd": "2026-11-01"}
    data = {"tenantId": "acme", "clientId": "greenfield", **month}
    schema["examples"] = [{"task": "generate-invoice", "data": data}]
    refused: list[dict[str, Any]] = [
        {"required": list(names), "properties": dict.fromkeys(names, _THERE)} for names in _APART
    ]
    without_key = {"singleton_policy": _THERE, "singleton_key": {"type": "null"}}
    refused.append({"required": ["singleton_policy"], "properties": without_key})
    schema["not"] = {"anyOf": refused}


class NewJob(BaseModel):
    """What is to be done."""

    model_config = ConfigDict(extra="forbid", json_schema_extra=_described)

    task: str = Field(
        min_length=1,
        max_length=255,
        description="A task's or handler's name.",
        json_schema_extra={**STORABLE},
    )
    data: Any = Field(None, description="For a handler.")
    args: list[Any] | None = Field(None, description="For a task: positional arguments.")
    kwargs: dict[str, Any] | None = Field(None, description="For a task: arguments by name.")
    tenant: str | None = Field(None, min_length=1, max_length=255, json_schema_extra={**STORABLE})
    engine: Engine | None = None
    queue: str | None = Field(None, pattern=r"^[A-Za-z0-9_.:@-]{1,200}$")
    priority: int | None = Field(None, ge=0, le=9, description="Higher first.")
    run_at: Instant | None = Field(None, description="Not before then.")
    countdown: float | None = Field(None, ge=0, le=_A_YEAR, description="Not before so many seconds.")
    expires_at: Instant | None = Field(None, description="It does not start after that.")
    expires_in: float | None = Field(None, gt=0, le=_A_YEAR, description="Nor after so many seconds.")
    singleton_key: str | None = Field(
        None, min_length=1, max_length=SINGLETON_KEY_LIMIT, json_schema_extra={**STORABLE}
    )
    singleton_policy: SingletonPolicy | None = None
    user_id: UUID | None = None
    metadata: dict[str, Any] | None = Field(
        None,
        description="Kept with the job, beside its data.",
        json_schema_extra={"propertyNames": {"not": {"enum": [*sorted(OWN_METADATA)]}}},
    )

    @model_validator(mode="after")
    def _of_two_only_one(self) -> NewJob:
        for one, other in _APART:
            if getattr(self, one) is not None and getattr(self, other) is not None:
                raise ValueError(f"say {one} or {other}, not both")
        if taken := sorted(OWN_METADATA & set(self.metadata or ())):
            raise ValueError(f"metadata has {', '.join(taken)}, which the job's row says itself")
        return self


Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        pattern=r"^[!-~]{1,255}$",
        description="The same request with the same key makes no second job, for 48 hours at least.",
    ),
]


def send_job(context: Asked, asked: NewJob, response: Response, key: Key = None) -> SentJob:
    """Send a job to a handler or task.

    With `Idempotency-Key`, the same request sent again is answered with the job that it made the first time (status
    200, outcome `repeated`), also when that has ended; another request with the same key is refused (409).
    """
    sending = _Sending(context, asked, _tenant_for(context, asked))
    try:
        outcome, job = sending.send() if key is None else sending.send_once(key)
    except JobBridgeError as error:
        sending.note("refused", None, str(error))
        raise
    except HTTPException as error:
        sending.note("refused", None, error.detail)
        raise
    sending.note("done" if outcome == Outcome.CREATED else outcome, job)
    row = context.app.jobs.get(job)
    if row is None:
        raise Refused(
            409, "The job of that request is not there any more.", hint="Choose another key for another job."
        )
    response.status_code = 201 if outcome in {Outcome.CREATED, Outcome.REPLACED} else 200
    response.headers["Location"] = context.path("api_job", job_id=str(job.job_id))
    return SentJob.model_construct(outcome=outcome, job=job_answer(context, row))


class _Sending:
    """One request for a job."""

    def __init__(self, context: RequestContext, asked: NewJob, tenant: TenantId | None) -> None:
        self._context, self._asked, self._tenant = context, asked, tenant

    def send(self) -> tuple[str, JobKey]:
        """Send it; gives what came of it, and the job.

        Raises:
            JobBridgeError: It cannot be sent as asked.
            HTTPException: The arguments do not fit, or the broker cannot be reached.
        """
        handle = self._enqueue()
        sent = handle.result.job
        return str(handle.outcome), sent.key

    def send_once(self, key: str) -> tuple[str, JobKey]:
        """Send it, unless a request with that key was there before. Raises as `send`."""
        app = self._context.app
        if not app.shares_database_with_broker:
            raise UnsupportedOption(
                "An idempotency key needs a broker in the database of the jobs, and this one is elsewhere.",
                hint="Use a jobbridge+postgresql:// broker, or a singleton_key.",
            )
        request = RequestKey(
            scope=self._context.principal.tenant or "", key=key, fingerprint=self._fingerprint()
        )
        with app.database.transaction() as connection:
            earlier = idempotency.claim(connection, request)
            if earlier is None:
                with app.enqueue_on(connection):
                    outcome, job = self.send()
                idempotency.settle(connection, request, job.tenant, job.job_id)
                return outcome, job
        if not earlier.is_same or earlier.job is None:
            raise Refused(
                409,
                "Another request had that idempotency key.",
                hint="Choose a new key for each job; send the same body to be given the first one's job.",
            )
        return "repeated", earlier.job

    def note(self, outcome: str, job: JobKey | None, reason: str | None = None) -> None:
        self._context.note(
            "enqueue",
            outcome=outcome,
            tenant=self._tenant if job is None else job.tenant,
            subject=None if job is None else str(job.job_id),
            reason=reason,
            details={"task": self._asked.task},
        )

    def _fingerprint(self) -> bytes:
        asked = self._asked.model_dump(mode="json", exclude_none=True) | {"tenant": self._tenant}
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).digest()

    def _enqueue(self) -> JobHandle:
        asked = self._asked
        try:
            return self._context.app.enqueue(
                asked.task,
                self._data(),
                tenant=self._tenant,
                engine=asked.engine,
                queue=asked.queue,
                run_at=_later(asked.run_at, asked.countdown),
                priority=asked.priority,
                user_id=asked.user_id,
                metadata=asked.metadata,
                expires=asked.expires_at or _duration(asked.expires_in),
                singleton_key=asked.singleton_key,
                singleton_policy=asked.singleton_policy,
            )
        except PayloadTooLarge:
            raise
        except (TypeError, EncodeError) as error:  # Celery compares arguments with the function's signature
            raise Refused(
                422,
                f"The arguments do not fit {asked.task!r}: {error}",
                hint="Correct args and kwargs: they are passed to the task's function.",
            ) from error
        except OperationalError as error:
            raise HTTPException(503, "The broker cannot be reached.", {"Retry-After": "5"}) from error

    def _data(self) -> Any:
        """Give the data in the shape that `enqueue` takes for that kind of task."""
        asked = self._asked
        if asked.task.startswith(_INTERNAL):
            raise UnknownHandler.named(asked.task)
        is_handler = handler_of(find_task(self._context.app, asked.task)) is not None
        if asked.args is None and asked.kwargs is None:
            return asked.data
        if is_handler:
            raise UnsupportedOption(f"{asked.task!r} is a handler.", hint="Send `data`, not args and kwargs.")
        return {"args": asked.args or [], "kwargs": asked.kwargs or {}}


def _tenant_for(context: RequestContext, asked: NewJob) -> TenantId | None:
    """Give whose job it is to be; of a bound principal there is one answer."""
    own, by_query = context.principal.tenant, storable(context.request.query_params.get("tenant", ""))
    named = {asked.tenant, by_query} - {None, "", own}
    if own is not None and (named or context.names_another_tenant(asked.data, asked.kwargs)):
        raise Refused(
            403,
            f"Your token is of the tenant {own}, and the job would be another one's.",
            hint="Leave out the tenant, also in the data.",
        )
    text = own or asked.tenant or by_query
    if not text:
        return None
    written = context.dashboard.tenant_ids.written(text)
    if written is None:
        raise HTTPException(422, f"The tenant is {text[:60]!r}; here tenants are uuids.")
    return written


def _later(run_at: datetime | None, countdown: float | None) -> datetime | None:
    return run_at if countdown is None else datetime.now(UTC) + timedelta(seconds=countdown)


def _duration(seconds: float | None) -> timedelta | None:
    return None if seconds is None else timedelta(seconds=seconds)


def list_tasks(context: Asked) -> Tasks:
    """Give what can be sent, by name."""
    app = context.app
    app.loader.import_default_modules()
    names = sorted(name for name in app.tasks if not name.startswith(_INTERNAL))
    return Tasks(tasks=[_task(name, handler_of(app.tasks[name])) for name in names])


def _task(name: str, spec: Any) -> Task:
    model = getattr(spec, "data_model", None)
    return Task(
        name=name,
        description=getattr(spec, "description", None) or None,
        is_handler=spec is not None,
        data_schema=None if model is None else model.model_json_schema(),
    )


RULES = (
    ApiRule(
        f"{PREFIX}/jobs",
        "api_send",
        send_job,
        Role.OPERATOR,
        methods=POST,
        status=201,
        errors=(404, 409),
        more=(
            (200, "There is such a job already: by its singleton key, or by the idempotency key.", SentJob),
        ),
    ),
    ApiRule(f"{PREFIX}/tasks", "api_tasks", list_tasks, Role.OPERATOR),
)
