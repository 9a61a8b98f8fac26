"""The children of one fan-out, from items to rows; and what runs them where there are no rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from kombu.utils import json as kombu_json

from jobbridge.app.execute.handlers import tenant_in
from jobbridge.app.publish.commands import arguments_for, find_task
from jobbridge.core import fanout
from jobbridge.core.envelope import HEADER
from jobbridge.core.fanout import FAN_OUT_HEADER, Child, ChildCounts, FanOut, Member
from jobbridge.core.handlers import handler_of
from jobbridge.core.keys import SYSTEM_TENANT, Engine, JobKey, TenantId, job_id_for
from jobbridge.core.status import JobStatus
from jobbridge.core.tenant_names import tenant_named
from jobbridge.errors import ChildrenFailed, UnsupportedOption
from jobbridge.store.fanout import children as child_rows
from jobbridge.store.fanout import parent as parent_rows
from jobbridge.store.fanout.parent import NewMember

if TYPE_CHECKING:
    from jobbridge.app.application import Celery
    from jobbridge.postgres.caller_connection import DriverConnection

#: Rows in one INSERT.
BATCH = 1000
#: How many children an error names.
EXAMPLES = 5

#: What of a task's own options goes along with each child, wherever it is sent from.
_SENDING_OPTIONS = ("queue", "priority", "time_limit", "soft_time_limit", "serializer", "compression")


def make(
    app: Celery,
    connection: DriverConnection,
    parent: JobKey,
    fan_out: FanOut,
    *,
    root_id: str,
    parent_id: str,
    default_engine: Engine,
) -> None:
    """Make the fan-out of a parent and its members, all of which wait; those of an earlier run of it are kept.

    Args:
        app: Which knows the children's handler.
        connection: In the transaction in which the parent is sent, or gives up its attempt.
        parent: Their parent.
        fan_out: What is wanted.
        root_id: Celery's, of the children.
        parent_id: The parent's task id.
        default_engine: Of children whose handler does not say.

    Raises:
        UnsupportedOption: The items, or where the children would go, do not fit.
        HandlerError: There is no such handler, or a child's data does not fit it.
        TenantRequired: The handler needs a tenant, and a child has none.
    """
    task = find_task(app, fan_out.task)
    options = _options(task, fan_out, default_engine)
    _check_broker(app, options)
    generation = parent_rows.open_fan_out(
        connection,
        parent,
        task=fan_out.task,
        options={**options, "root_id": root_id, "parent_id": parent_id, **_trace(app)},
        concurrency=fan_out.concurrency,
    )
    # Only then are there any: 100,000 at most.
    former = child_rows.ids(connection, parent) if generation > 1 else {}

    def id_of(tenant: TenantId, key: str) -> UUID:
        child_id, status = former.get((tenant, key), (fanout.child_id(parent, key), None))
        # Workers remember the ids of what they were told to stop: such a child is run again as a new job.
        return fanout.child_id(parent, f"{key}\n{generation}") if status == JobStatus.CANCELLED else child_id

    members = (
        _member(task, parent, position, child, id_of) for position, child in enumerate(fan_out.children())
    )
    for batch in _batches(members):
        parent_rows.add(connection, parent, batch, generation=generation)
    parent_rows.count(connection, parent, generation=generation)


def _options(task: Any, fan_out: FanOut, default_engine: Engine) -> dict[str, Any]:
    """Give the options of every child, resolved here: who sends them later may not know the task."""
    own = {name: value for name, value in task._get_exec_options().items() if name in _SENDING_OPTIONS}
    engine = Engine.named_by(task) or default_engine
    given = {name: value for name, value in {**own, **fan_out.options}.items() if value is not None}
    return {"engine": engine.value, **given}


def _check_broker(app: Celery, options: dict[str, Any]) -> None:
    if options["engine"] == Engine.CELERY and not app.shares_database_with_broker:
        raise UnsupportedOption(
            "The children would go to a broker that is not in the database of the job tables.",
            hint="Use a jobbridge+postgresql:// broker on the same database, or engine='temporal'.",
        )


def _member(
    task: Any, parent: JobKey, position: int, child: Child, id_of: Callable[[TenantId, str], UUID]
) -> NewMember:
    args, kwargs, tenant = _prepared(task, parent.tenant, child)
    assert child.key is not None  # FanOut.children gives each one
    arguments = _as_json([args, kwargs], f"The item {child.key!r}")
    if codec := task.app.database.codec:
        # The same for the same: what completed with these arguments is not run again with its parent.
        arguments = codec.seal_text(arguments, _place(parent, child.key), is_stable=True)
    return NewMember(
        key=JobKey(tenant=tenant, job_id=id_of(tenant, child.key)),
        position=position,
        item_key=child.key,
        arguments=arguments,
    )


def _prepared(task: Any, parents: TenantId, child: Child) -> tuple[list[Any], dict[str, Any], TenantId]:
    """Give a child's arguments, checked, and its tenant."""
    args, kwargs = arguments_for(task, child.data)
    tenant = tenant_named(child.tenant) if child.tenant else tenant_in(child.data)
    if tenant is None and parents != SYSTEM_TENANT:
        tenant = parents
    if handler_of(task) is not None:
        args, kwargs, tenant = task.prepare_arguments(args, kwargs, tenant)
    return args, kwargs, tenant or SYSTEM_TENANT


def resumption(task: Any) -> str:
    """Give the message by which the job that runs goes on, as JSON: what a retry of it would be."""
    request = task.request
    headers = {**(request.headers or {}), **_trace(task.app).get("headers", {}), FAN_OUT_HEADER: True}
    signature = task.signature_from_request(request, headers=headers, retries=0, expires=None)
    message = {
        "task": signature.task,
        "args": list(signature.args or ()),
        "kwargs": dict(signature.kwargs or {}),
        "options": {name: value for name, value in signature.options.items() if value is not None},
    }
    text, codec = _as_json(message, f"The message of {task.name!r}"), task.app.database.codec
    return codec.seal_text(text, f"{job_id_for(request.id)}/resumption") if codec else text


def arguments_of(app: Celery, parent: JobKey, item_key: str, stored: str) -> tuple[list[Any], dict[str, Any]]:
    """Give a child's arguments as its row has them.

    Raises:
        EncryptionError: They cannot be opened.
    """
    args, kwargs = kombu_json.loads(app.database.codec.open_text(stored, _place(parent, item_key)))
    return args, kwargs


def message_of(app: Celery, parent: JobKey, stored: str) -> dict[str, Any]:
    """Give the message by which a parent goes on.

    Raises:
        EncryptionError: It cannot be opened.
    """
    message: dict[str, Any] = kombu_json.loads(
        app.database.codec.open_text(stored, f"{parent.job_id}/resumption")
    )
    return message


def _place(parent: JobKey, item_key: str) -> str:
    return f"{parent.job_id}/item/{item_key}"


def _trace(app: Celery) -> dict[str, Any]:
    """Give the options by which children belong to the trace of their parent, whoever sends them."""
    carried = app.observer.carrier() if app.observer is not None else {}
    return {"headers": carried} if carried else {}


def run_eagerly(app: Celery, fan_out: FanOut) -> dict[str, Any]:
    """Run the children here and now, one after the other, as Celery's eager mode does with any task.

    Raises:
        ChildrenFailed: Not all went well.
    """
    task = find_task(app, fan_out.task)
    failed: list[Member] = []
    number = 0
    for child in fan_out.children():
        args, kwargs, tenant = _prepared(task, SYSTEM_TENANT, child)
        result = task.apply(args=args, kwargs=kwargs, headers={HEADER: {"tenant": tenant}})
        number += 1
        if not result.successful():
            failed.append(_failed(str(child.key), result.result))
    counts = ChildCounts(completed=number - len(failed), failed=len(failed))
    if failed:
        raise ChildrenFailed(fanout.failure_of(counts, failed[:EXAMPLES]))
    return counts.to_json()


def _failed(item_key: str, error: Any) -> Member:
    key = JobKey(tenant=SYSTEM_TENANT, job_id=uuid4())
    return Member(
        key=key, item_key=item_key, status=JobStatus.FAILED, error=f"{type(error).__name__}: {error}"
    )


def _as_json(document: Any, what: str) -> str:
    try:
        text: str = kombu_json.dumps(document)
    except (TypeError, ValueError, RecursionError) as error:
        raise UnsupportedOption(
            f"{what} cannot be written as JSON: {error}.",
            hint="Send plain values: text, numbers, lists, mappings.",
        ) from None
    return text


def _batches(members: Iterable[NewMember]) -> Iterator[list[NewMember]]:
    rest = iter(members)
    while batch := list(islice(rest, BATCH)):
        yield batch
