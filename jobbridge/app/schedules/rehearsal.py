"""Whether what a schedule is to send could be sent: asked when it is made, or each of its fires would fail.

The message is made as a fire makes it, and passes what each message passes before anything is written. Nobody's
receivers of signals hear of it, and no database is asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from celery.exceptions import QueueNotFound
from kombu import serialization
from kombu.exceptions import SerializerNotInstalled
from kombu.utils.uuid import uuid

from jobbridge.app.options import JobOptions
from jobbridge.app.publish.message.checks import check_message, readable_ids
from jobbridge.app.publish.producer import JobProducer
from jobbridge.core.schedules.definition import ScheduleDefinition
from jobbridge.errors import UnsupportedOption

if TYPE_CHECKING:
    from jobbridge.app.application import Celery

_MESSAGE = frozenset(
    {"countdown", "eta", "expires", "time_limit", "soft_time_limit", "shadow", "ignore_result"}
)


def rehearse(app: Celery, definition: ScheduleDefinition) -> None:
    """Refuse a schedule whose jobs `delay()` would refuse, on the schedule's engine.

    Raises:
        JobBridgeError: It would.
    """
    options = _options_of(definition)
    taken = JobOptions.take_from(options)
    name, args, kwargs = definition.task, tuple(definition.args), dict(definition.kwargs)
    told = {each: options.pop(each) for each in _MESSAGE & options.keys()}
    _check_serializer(options.get("serializer") or app.conf.task_serializer)
    try:
        routed: dict[str, Any] = app.amqp.router.route(options, name, args, kwargs, app.tasks.get(name))
    except QueueNotFound as error:
        raise UnsupportedOption(
            f"The schedule {definition.name!r} goes to a queue that is not declared: {error.args[0]}.",
            hint="Declare it in `task_queues`.",
        ) from None
    message = app.amqp.as_task_v2(uuid(), name, args, kwargs, create_sent_event=False, **told)
    check_message(name, message.headers, routed)
    producer = JobProducer(app, None, name, taken, queue=routed.get("queue"))
    producer.check(producer.prepared(message).body, {**routed, "headers": dict(message.headers)})


def read_by_all(options: Mapping[str, Any]) -> dict[str, Any]:
    """Give those options that mean the same to every process: JobBridge's, and what a message says of itself."""
    known = JobOptions.names() | _MESSAGE | {"priority"}
    return {name: value for name, value in options.items() if name in known}


def _options_of(definition: ScheduleDefinition) -> dict[str, Any]:
    """Give what a fire would send it with."""
    options = {**definition.options, "task_id": None}  # each fire has an id of its own
    own = {"queue": definition.queue, "priority": definition.priority, "user_id": definition.user_id}
    options |= {name: value for name, value in own.items() if value is not None}
    return readable_ids(options | {"tenant": definition.tenant, "engine": definition.engine})


def _check_serializer(name: str) -> None:
    try:
        serialization.dumps([], serializer=name)
    except SerializerNotInstalled:
        raise UnsupportedOption(f"serializer is {name!r:.60}.", hint="Pass one that kombu knows.") from None
