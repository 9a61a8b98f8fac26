"""The short way of `apply_async` to a job: what Celery's `send_task` and its sender do, without what is not asked for.

A job that is sent as most are needs no producer out of a pool, no signal that nobody receives, no event. Then Celery's
own calls for it are left out; its router, its message and its result are Celery's. Whatever is out of the ordinary
goes Celery's way, and so does everything as soon as somebody has put something of his own in the place of what is left
out here: a receiver, an observer, a wrapper around `send_task` or `Producer.publish`, another sender or protocol.

`tests/integration/app/test_short_way.py` sends by both and compares rows and messages.

Source: celery 5.7, app/base.py `send_task`; app/amqp.py `_create_task_sender`.
"""

from __future__ import annotations

import numbers
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

import celery
from celery import signals
from celery.app import amqp as celery_amqp
from celery.app import base as celery_base
from celery.app.routes import Router
from celery.backends.base import Backend
from celery.utils import time as celery_time
from celery.utils.functional import maybe_list
from kombu import Producer, Queue, messaging
from kombu.common import Broadcast

from jobbridge.app.options import JobOptions
from jobbridge.app.publish.message.checks import check_message
from jobbridge.app.publish.message.fields import plain_reprs
from jobbridge.app.publish.message.ids import new_task_id
from jobbridge.app.publish.producer import JobProducer
from jobbridge.app.publish.rules.run_time import run_time_rules
from jobbridge.app.publish.template import Template, may_vary, property_of

if TYPE_CHECKING:
    from jobbridge.app.application import Celery
    from jobbridge.broker import Parcel
    from jobbridge.core.events import Submitted

#: Of `send_task`; whatever else is given goes Celery's way.
_KNOWN = frozenset(
    {
        "task_id", "link", "link_error", "result_cls", "shadow", "task_type", "queue", "priority", "expires",
        "serializer", "time_limit", "soft_time_limit", "countdown", "eta", "ignore_result", "add_to_parent", "group_id",
        "group_index", "retries", "chord", "reply_to", "root_id", "parent_id", "route_name", "chain", "headers",
        "replaced_task_nesting", "retry", "retry_policy", *JobOptions.names(),
    }
)  # fmt: skip
#: Of a task, as Celery reads it off; set, they are something of one's own.
_UNSET = frozenset(
    {
        "producer", "connection", "router", "publisher", "exchange", "routing_key", "delivery_mode", "compression",
        "immediate", "mandatory",
    }
)  # fmt: skip
_NAMES = _KNOWN | _UNSET
#: What routing leaves, and the message does not take.
_SENT = frozenset(
    {"queue", "priority", "serializer", "headers", "retry", "retry_policy", *JobOptions.names()}
)


def _is_of(function: Any, module: Any) -> bool:
    code = getattr(function, "__code__", None)
    return code is not None and code.co_filename == module.__file__


#: What this way leaves out or calls itself, as their authors wrote it; None: somebody was here before.
_ORIGINALS = (celery.Celery.send_task, Producer.publish, Producer._publish)
_ARE_ORIGINAL = (
    _is_of(celery.Celery.send_task, celery_base)
    and _is_of(Producer.publish, messaging)
    and _is_of(Producer._publish, messaging)
)
_Router: Any = Router  # the stubs leave out what is read or called here
_time: Any = celery_time
#: What messages of one template have in common: the task's name, the queue, priority and engine that are asked for.
_Kind = tuple[str, Any, Any, str]
_MOST_TEMPLATES, _TRIES = 1000, 3
_is_retrying: Any = getattr(celery_amqp, "_callback_publish_retry", None)


class ShortWay:
    """Of one app, made with its sender: the settings that are read then are those which Celery's sender keeps.

    Args:
        app: Whose jobs.
        amqp: Its messages.
    """

    def __init__(self, app: Celery, amqp: Any) -> None:
        self._app, self._amqp = app, amqp
        self._rules = run_time_rules(app)
        self._retry = app.conf.task_publish_retry
        self._policy = dict(app.conf.task_publish_retry_policy or {})
        self._delivery_mode = app.conf.task_default_delivery_mode
        self._serializer = app.conf.task_serializer
        self._is_open = not app.conf.task_compression
        self._settings: tuple[Any, ...] = ()
        self._templates: dict[_Kind, Template] = {}
        self._refused = Counter[_Kind]()
        self._is_evented, self._default_queue = False, ""

    def send(self, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """Send a task as `send_task` does; gives its result, or None if it has to go Celery's way: nothing was done.

        Args:
            arguments: Of `send_task`, by position.
            options: Of `send_task`, by name; left as they are.
        """
        app, given = self._app, dict(options)
        if len(arguments) != 3 or not self._is_open_now():
            return None
        name, args, kwargs = arguments
        template = None if self._rules.concern(name) else self._templates.get(_kind_of(name, options))
        parent = app.current_worker_task
        if template is not None and _is_plain(options.get("producer")):
            lineage = {} if parent is None else self._lineage(parent, options)
            sent_as = None if lineage is None else template.send(args, kwargs, options | lineage)
            if sent_as is not None:
                return self._result(sent_as, options, parent)
        if not _is_known(given):
            return None
        task = given.pop("task_type")
        given.pop("result_cls", None)
        task_id = given.pop("task_id", None) or new_task_id()
        message, told = self._taken(given)
        if (
            message["ignore_result"] is not True
            and type(app.backend).on_task_call is not Backend.on_task_call
        ):
            return None
        routed = self._routed(told, given.pop("route_name", None) or name, args, kwargs, task)
        lifetime = self._lifetime(message["expires"])
        if routed is None or (lifetime is not None and lifetime < 0):
            return None
        queue, sent = routed
        if lifetime is not None:
            sent["expiration"] = lifetime
        if parent is not None:
            if not (message["root_id"] and message["parent_id"]) and app.conf.task_inherit_parent_priority:
                return None
            message["root_id"] = message["root_id"] or parent.request.root_id or parent.request.id
            message["parent_id"] = message["parent_id"] or parent.request.id
        made = property_of(self._amqp, "create_task_message")(
            task_id, name, args, kwargs, create_sent_event=False, **message, **plain_reprs(args, kwargs)
        )
        self._send(name, made, queue, sent, options)
        return self._result(task_id, options, parent)

    def _lineage(self, parent: Any, given: Mapping[str, Any]) -> dict[str, Any] | None:
        """Give the ids of what is sent inside a task, as far as they are not given; None: there is more to it."""
        root_id, parent_id, request = given.get("root_id"), given.get("parent_id"), parent.request
        if given.get("task_id") == request.id:
            return None  # it goes on by this message
        if root_id and parent_id:
            return {}
        if self._app.conf.task_inherit_parent_priority:
            return None
        return {"root_id": root_id or request.root_id or request.id, "parent_id": parent_id or request.id}

    def _result(self, task_id: str, options: Mapping[str, Any], parent: Any) -> Any:
        result = (options.get("result_cls") or self._app.AsyncResult)(task_id)
        result.ignored = options.get("ignore_result")
        if parent is not None and options.get("add_to_parent", True):
            parent.add_trail(result)
        return result

    def _is_open_now(self) -> bool:
        app, amqp = self._app, self._amqp
        return (
            self._is_open
            and _ARE_ORIGINAL
            and (celery.Celery.send_task, Producer.publish, Producer._publish) == _ORIGINALS
            and not signals.before_task_publish.receivers
            and not signals.after_task_publish.receivers
            and not signals.task_sent.receivers
            and getattr(property_of(amqp, "create_task_message"), "__func__", None)
            is celery_amqp.AMQP.as_task_v2
            and app.observer is None
            and app.shares_database_with_broker
            and not (_is_retrying is not None and _is_retrying.get())
            and not self._look_at_settings()
        )

    def _look_at_settings(self) -> bool:
        """See to the settings that Celery reads for each message; whether an event is sent of each.

        To look one up takes as long as a dozen other steps, and hardly anybody changes them. What somebody sets in the
        running app is in `changes`.
        """
        conf = self._app.conf
        changes = conf.changes
        now = (
            len(conf.maps),
            len(changes),
            changes.get("task_send_sent_event"),
            changes.get("task_default_queue"),
        )
        if now != self._settings:
            self._is_evented, self._default_queue = conf.task_send_sent_event, conf.task_default_queue
            self._settings = now
            self._templates.clear()
        return self._is_evented

    def _taken(self, given: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Give what the message is made of, and what routes and sends it."""
        take = given.pop
        message = {
            "countdown": take("countdown", None),
            "eta": take("eta", None),
            "group_id": take("group_id", None),
            "group_index": take("group_index", None),
            "expires": take("expires", None),
            "retries": take("retries", 0),
            "chord": take("chord", None),
            "callbacks": maybe_list(take("link", None)),
            "errbacks": maybe_list(take("link_error", None)),
            "reply_to": take("reply_to", None) or self._app.thread_oid,
            "time_limit": take("time_limit", None),
            "soft_time_limit": take("soft_time_limit", None),
            "root_id": take("root_id", None),
            "parent_id": take("parent_id", None),
            "shadow": take("shadow", None),
            "chain": take("chain", None),
            "ignore_result": take("ignore_result", None),
            "replaced_task_nesting": take("replaced_task_nesting", 0),
        }
        return message, {name: take(name) for name in list(given) if name in _SENT}

    def _routed(
        self, told: dict[str, Any], name: str, args: Any, kwargs: Any, task: Any
    ) -> tuple[Any, dict[str, Any]] | None:
        """Give the queue, and how to send to it; None: it is not simply a queue."""
        router = property_of(self._amqp, "router")
        is_default = type(router) is _Router and not router.routes and told.get("queue") is None
        if is_default and (queue := router.queues.get(self._default_queue)) is not None:
            routed = {key: value for key, value in told.items() if value is not None}
        else:
            routed = router.route(told, name, args, kwargs, task)
            queue = routed.pop("queue", None)
        if not isinstance(queue, Queue) or isinstance(queue, Broadcast) or not routed.keys() <= _SENT:
            return None
        return None if queue.exchange is None or queue.exchange.type != "direct" else (queue, routed)

    def _lifetime(self, expires: Any) -> Any:
        """Give the seconds that are left; negative: Celery says what it makes of that."""
        if isinstance(expires, datetime):
            return _time.subtract_datetimes(expires, self._app.now()).total_seconds()
        return expires if expires is None or isinstance(expires, numbers.Real) else -1

    def _send(
        self, name: str, message: Any, queue: Any, sent: dict[str, Any], options: dict[str, Any]
    ) -> None:
        """Do as Celery's sender does with a message for a queue; take a template from it, if there is to be one."""
        job_options = JobOptions.take_from(sent)
        check_message(name, message.headers, {**sent, "queue": queue})
        producer = JobProducer(self._app, None, name, job_options, queue=queue)
        headers, properties, body, _ = producer.prepared(message)
        headers.update(sent.pop("headers", None) or {})
        retry, policy = sent.pop("retry", None), sent.pop("retry_policy", None)
        publish_options = {
            "exchange": "",
            "routing_key": queue.name,
            "serializer": sent.pop("serializer", None) or self._serializer,
            "compression": None,
            "retry": self._retry if retry is None else retry,
            "retry_policy": {**self._policy, **(policy or {})},
            "delivery_mode": queue.exchange.delivery_mode or self._delivery_mode,
            "declare": [queue],
            "headers": headers,
            "timeout": None,
            "confirm_timeout": None,
            **properties,
            **sent,
        }
        producer.publish(body, **publish_options)
        if producer.publication is not None and producer.publication.stored is not None:
            self._learn(options, publish_options, body, *producer.publication.stored)

    def _learn(
        self,
        options: dict[str, Any],
        publish_options: dict[str, Any],
        body: Any,
        submitted: Submitted,
        parcel: Parcel,
    ) -> None:
        kind, told = _kind_of(submitted.type, options), parcel.parameters
        known = self._templates.get(kind)
        is_due = known.is_stale if known is not None else self._refused[kind] < _TRIES
        if (
            not is_due
            or not all(may_vary(*option) for option in options.items())
            or len(self._templates) >= _MOST_TEMPLATES
        ):
            return
        try:
            self._templates[kind] = Template(self._app, options, publish_options, body, submitted, told)
        except ValueError:
            self._refused[kind] += 1


def _is_plain(producer: Any) -> bool:
    """Whether a producer, such as Celery's canvas passes along, would do nothing of its own."""
    if producer is None:
        return True
    plain: Any = Producer
    return (
        type(producer) is plain
        and not (producer.serializer or producer.compression or producer.on_return or producer.exchange.name)
        and getattr(producer._batch_local, "current", None) is None
    )


def _kind_of(name: str, options: dict[str, Any]) -> _Kind:
    queue, priority = options.get("queue"), options.get("priority")
    return (
        name,
        queue if type(queue) is str else None,
        priority if type(priority) is int else None,
        str(options.get("engine") or options.get("default_engine") or ""),
    )


def _is_known(given: dict[str, Any]) -> bool:
    """Whether all is known that `send_task` is given; what is left out here is taken out of it."""
    return (
        given.get("task_type") is not None
        and given.keys() <= _NAMES
        and _is_plain(given.pop("producer", None))
        and not _takes_set(given)
    )


def _takes_set(given: dict[str, Any]) -> bool:
    """Take out what is to be unset; whether any of it is set."""
    return any(given.pop(name) is not None for name in _UNSET & given.keys())
