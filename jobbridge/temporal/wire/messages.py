"""Between Celery's message and what Temporal carries.

On the way out, the arguments become the workflow's `data` (readable, and in the place that the contract gives them),
the rest of the message goes into the memo. On the way in, they are put together again; for a workflow that a foreign
client started, the message is made from the job's name and data as Celery's own client would make it. What a worker's
consumer is given is made of that in `jobbridge.temporal.worker.incoming`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from celery.utils.saferepr import saferepr

from jobbridge.app.publish.commands import arguments_for
from jobbridge.core.envelope import HEADER, Envelope
from jobbridge.core.keys import SYSTEM_TENANT, Engine, JobKey, TenantId, job_id_for
from jobbridge.core.tenant_names import tenant_named
from jobbridge.errors import JobBridgeError
from jobbridge.temporal.wire.contract import PAYLOAD_LIMIT, ExecuteOrder, JobInput
from jobbridge.temporal.wire.references import (
    DATA_IS,
    DATA_REFERENCE,
    IN_ROW,
    INLINE_LIMIT,
    DataIs,
    reference_to,
)

if TYPE_CHECKING:
    from jobbridge.app.application import Celery

Json = Any  # what json.loads returns

_LEFT_OUT = "leftOut"


class MissingMessage(JobBridgeError):
    """The row that should hold a message that was passed by reference has none."""

    hint = "Send the job again."


def size_of(document: Json) -> int:
    return len(json.dumps(document, default=str))


def bounded(document: Json, reference: Mapping[str, str]) -> Json:
    """Give a document, or what stands for it if Temporal would not carry it."""
    return dict(reference) if size_of(document) > PAYLOAD_LIMIT else document


def to_temporal(envelope: Envelope, *, is_handler: bool) -> tuple[JobInput, dict[str, Json]]:
    """Give the workflow's input and the message for its memo.

    Args:
        is_handler: The task takes one argument, its data.
    """
    size = size_of(envelope.to_json())
    if size > PAYLOAD_LIMIT:
        return _input(envelope, dict(DATA_REFERENCE)), reference_to(envelope.to_json())
    mark = {IN_ROW: True} if size > INLINE_LIMIT else {}
    if envelope.arguments is None:
        return _input(envelope, None), {**envelope.to_json(), **mark, DATA_IS: DataIs.NOTHING.value}
    args, kwargs, _ = envelope.arguments
    message = {**_without_reprs(envelope.without_arguments(), args, kwargs), **mark}
    if is_handler and len(args) == 1 and not kwargs:
        return _input(envelope, args[0]), {**message, DATA_IS: DataIs.ARGUMENT.value}
    return _input(envelope, {"args": args, "kwargs": kwargs}), {**message, DATA_IS: DataIs.ARGUMENTS.value}


def _reprs(args: list[Json], kwargs: dict[str, Json]) -> dict[str, str]:
    return {"argsrepr": saferepr(tuple(args)), "kwargsrepr": saferepr(kwargs)}


def _without_reprs(envelope: Envelope, args: list[Json], kwargs: dict[str, Json]) -> dict[str, Json]:
    """Leave out of the headers what tells the arguments once more, unless its sender wrote it differently."""
    made = _reprs(args, kwargs)
    left_out = [name for name, text in made.items() if envelope.headers.get(name) == text]
    headers = {name: value for name, value in envelope.headers.items() if name not in left_out}
    return {**replace(envelope, headers=headers).to_json(), _LEFT_OUT: left_out}


def _with_reprs(message: Mapping[str, Json], args: list[Json], kwargs: dict[str, Json]) -> Envelope:
    envelope = Envelope.from_json(dict(message)).with_arguments(args, kwargs)
    made = _reprs(args, kwargs)
    left_out = {name: made[name] for name in message.get(_LEFT_OUT, ()) if name in made}
    return replace(envelope, headers={**envelope.headers, **left_out})


def continuation(document: dict[str, Json]) -> dict[str, Json]:
    """Give a further message of a job, which its row has, as the workflow passes it on: whole only if it is small."""
    return reference_to(document) if size_of(document) > INLINE_LIMIT else document


def _input(envelope: Envelope, data: Json) -> JobInput:
    return JobInput(job_id=envelope.id, job_name=envelope.task, tenant_id=envelope.tenant, data=data)


def envelope_of(
    order: ExecuteOrder,
    app: Celery,
    *,
    queue: str,
    run_id: str,
    load: Callable[[JobKey], dict[str, Json] | None],
) -> Envelope:
    """Give the whole message that an activity is to execute.

    Args:
        load: Reads the message that a job's row keeps.

    Raises:
        MissingMessage: It was passed by reference, and the row does not hold it any more.
        UnsupportedOption: It was started by hand, for what cannot be a tenant.
    """
    if order.message is None:
        return _foreign(order.job, app, queue=queue, run_id=run_id)
    data_is = order.message.get(DATA_IS)
    if data_is == DataIs.REFERENCE:
        return _loaded(order.message, load)
    envelope = Envelope.from_json(order.message)
    if data_is == DataIs.ARGUMENT:
        return _with_reprs(order.message, [order.job.data], {})
    if data_is == DataIs.ARGUMENTS:
        return _with_reprs(order.message, order.job.data["args"], order.job.data["kwargs"])
    return envelope


def _loaded(message: Mapping[str, Json], load: Callable[[JobKey], dict[str, Json] | None]) -> Envelope:
    key = JobKey(tenant=TenantId(message["tenant"]), job_id=job_id_for(message["id"]))
    document = load(key)
    if document is None or document.get("delivery") != message["delivery"]:
        raise MissingMessage(
            f"The row of job {key.job_id} does not hold the message {message['delivery']} any more."
        )
    return Envelope.from_json(document)


def _foreign(job: JobInput, app: Celery, *, queue: str, run_id: str) -> Envelope:
    tenant = tenant_named(job.tenant_id or _tenant_in(job.data) or SYSTEM_TENANT)
    args, kwargs = arguments_for(app.tasks.get(job.job_name), job.data)
    headers = {
        "lang": "py",
        "task": job.job_name,
        "id": job.job_id,
        "root_id": job.job_id,
        "parent_id": None,
        "group": None,
        "retries": 0,
        "timelimit": [None, None],
        "argsrepr": saferepr(args),
        "kwargsrepr": saferepr(kwargs),
        "origin": "temporal",
        # The run's id is a uuid and the same for each of its activities: it names this hand-over.
        HEADER: {
            "tenant": tenant,
            "delivery": run_id,
            "engine": Engine.TEMPORAL.value,
            "metadata": {"data": job.data},
        },
    }
    embed = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    return Envelope(
        id=job.job_id,
        task=job.job_name,
        tenant=tenant,
        delivery=run_id,
        queue=queue,
        headers=headers,
        properties={"correlation_id": job.job_id},
        arguments=[args, kwargs, embed],
    )


def _tenant_in(data: Json) -> str | None:
    tenant = data.get("tenantId") if isinstance(data, dict) else None
    return str(tenant) if tenant else None
