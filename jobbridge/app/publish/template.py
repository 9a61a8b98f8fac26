"""What is the same in all messages of a task that are sent with the same options, made once.

Most calls differ in arguments and ids only. The rest of their headers, properties and rows is taken from a message
that was sent by the short way. Whether a template gives the same text as that way is tried on the very message that it
is taken from; if it does not, there is none. It takes arguments that are few, short and plain, and ids that are UUIDs
in their usual spelling. Whatever else is given goes the short way itself.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from celery.app.routes import MapRoute, Router
from celery.utils.nodenames import anon_nodename
from celery.utils.saferepr import saferepr
from kombu import serialization
from kombu.utils import json as kombu_json

from jobbridge.app.execute.claim import current_run
from jobbridge.app.execute.tenancy import inherited_tenant
from jobbridge.app.options import JobOptions, Sent
from jobbridge.app.publish.delivery import outcome_of
from jobbridge.app.publish.message.fields import is_simple, plain_reprs
from jobbridge.app.publish.message.ids import new_job_id
from jobbridge.app.publish.repeating import repeating
from jobbridge.broker import Parcel, hand_over, lean_headers
from jobbridge.core.enqueue import Outcome
from jobbridge.core.envelope import HEADER
from jobbridge.core.events import Submitted
from jobbridge.core.handlers import handler_of
from jobbridge.core.keys import SYSTEM_TENANT, Engine, JobKey, TenantId
from jobbridge.core.tenant_names import tenant_named
from jobbridge.recording import PlainJob

if TYPE_CHECKING:
    from jobbridge.app.application import Celery

#: Of `send_task`, in which the messages of a template differ.
_OWN = frozenset(
    {
        "task_id", "group_id", "group_index", "root_id", "parent_id", "reply_to", "add_to_parent", "result_cls",
        "producer", "tenant",
    }
)  # fmt: skip
#: Those with which a message may become one. A change of any but its own makes another one.
TEMPLATE_OPTIONS = _OWN | {
    "link", "link_error", "shadow", "task_type", "queue", "routing_key", "exchange", "priority", "expires",
    "serializer", "delivery_mode", "compression", "time_limit", "soft_time_limit", "immediate", "mandatory",
    "ignore_result", "retry", "engine", "default_engine",
}  # fmt: skip
#: Those that say nothing if they are None.
_NOTHING_IF_NONE = JobOptions.names() - _OWN
_OWN_HEADERS = frozenset(
    {"id", "group", "group_index", "root_id", "parent_id", "argsrepr", "kwargsrepr", "origin"}
)
#: Those of them that are left out if they are null.
_ABSENT = frozenset({"group", "group_index", "parent_id"})
_OWN_FIELDS = frozenset(
    {"key", "task_id", "external_id", "delivery", "metadata", "root_id", "parent_id", "group_id"}
)
_EMPTY = (
    "run_at", "expires_at", "continues", "chord_id", "chord_index", "singleton_key", "user_id", "message", "broker",
)  # fmt: skip
_Router: Any = Router  # the stubs leave out what is read here
_serialization: Any = serialization
_encode = kombu_json.JSONEncoder().encode
_compact = kombu_json.JSONEncoder(separators=(",", ":")).encode
_text = json.encoder.encode_basestring_ascii
_NAMES = {None: "null", True: "true", False: "false"}
#: Arguments whose text has one of these are not stored in the row as they are.
_TRACES = re.compile(r"\\u0000|\\u[dD]|NaN|Infinity")


class Template:
    """Of one task of one app.

    Args:
        app: Whose message it is.
        options: Of `send_task`, by name.
        publish_options: Of the producer.
        body: Arguments and callbacks, not yet serialized.
        submitted: What was recorded of it.
        parameters: Of the message, as they were stored.

    Raises:
        ValueError: Its like cannot be made out of it.
    """

    def __init__(
        self,
        app: Celery,
        options: Mapping[str, Any],
        publish_options: Mapping[str, Any],
        body: Any,
        submitted: Submitted,
        parameters: Mapping[str, Any],
    ) -> None:
        self._app, self._amqp = app, app.amqp  # which takes a lock each time
        self._task: Any = options["task_type"]
        self._most = app.settings.payload_limit // 2  # the short way counts the headers, too
        self._options = self._common(options)
        self._traits = self._traits_now()
        self._direct = {name: publish_options[name] for name in ("declare", "routing_key")}
        self._retry = {name: publish_options[name] for name in ("retry", "retry_policy")}
        self._max_depth = app.conf.task_repr_maxlevels
        self._database = self._amqp.direct.database
        names = [name for name in Submitted.__slots__ if name not in _OWN_FIELDS]
        self._fields = {name: getattr(submitted, name) for name in names}
        self._params = {**app.recorder.params_of(submitted), **parameters}
        headers = publish_options["headers"]
        kept = lean_headers(headers)
        told = {name: value for name, value in headers.items() if name in kept or name in _ABSENT}
        self._headers = _with_gaps(told, _OWN_HEADERS, _ABSENT)
        self._properties = _with_gaps(json.loads(parameters["properties"]), {"correlation_id", "reply_to"})
        self._embedded = f", {_encode(body[2])}]"
        self._serializer = publish_options["serializer"]
        self._encoder = _encoder_of(self._serializer)
        self._check(headers, publish_options["reply_to"], body, submitted, parameters)

    def _check(
        self, headers: Mapping[str, Any], reply_to: str, body: Any, submitted: Submitted, parameters: Any
    ) -> None:
        """Try it on its own message."""
        task, router = self._task, self._amqp.router
        is_usual = (
            submitted.engine is Engine.CELERY
            and self._app._tasks.get(submitted.type) is task
            and handler_of(task) is None
            and type(router) is _Router
            and all(type(route) is MapRoute for route in router.routes)
            and isinstance(self._options.get("queue") or "", str)
            and not any(body[2].values())
            and all(getattr(submitted, name) is None for name in _EMPTY)
            and set(submitted.metadata) == {"data"}
            and headers["root_id"] is not None
            and self._encoder is not None
            and not self._app.database.codec
        )
        if not is_usual:
            raise ValueError
        args, kwargs = body[0] or (), body[1] or {}
        told = self._headers_of(
            headers["id"], str(submitted.delivery), submitted.key.tenant, args, kwargs,
            {"group_id": headers["group"], "group_index": headers["group_index"], "root_id": headers["root_id"],
             "parent_id": headers["parent_id"]},
        )  # fmt: skip
        is_same = (
            told == parameters["headers"]
            and self._properties_of(headers["id"], reply_to) == parameters["properties"]
            and self._body_of((_encode(args), _encode(kwargs))) == parameters["body"]
            and {"data": {"args": list(args), "kwargs": dict(kwargs)}} == submitted.metadata
        )
        if not is_same:
            raise ValueError

    def send(self, args: Any, kwargs: Any, options: Mapping[str, Any]) -> str | None:
        """Send such a message; gives its task id, or None if it is not such a one: then nothing was done.

        Args:
            args: Of the task, by position.
            kwargs: Of the task, by name.
            options: Of `send_task`, by name.
        """
        args, kwargs, ids = args or (), kwargs or {}, _uuids(options)
        if ids is None or not self._fits(args, kwargs, options):
            return None
        written = _json_of(args), _pairs_of(kwargs) if kwargs else "{}"
        if len(written[0]) + len(written[1]) > self._most:
            return None
        if _TRACES.search(written[0]) or _TRACES.search(written[1]):
            return None
        job_id, root_id, parent_id = ids
        task_id, delivery, tenant = str(job_id), uuid4(), self._tenant(options)
        reply_to = options.get("reply_to") or self._app.thread_oid
        params = self._params.copy()
        params.update(
            is_notified=True,
            tenant=tenant,
            job_id=job_id,
            task_id=task_id,
            external_id=task_id,
            correlation_id=task_id,
            delivery=delivery,
            root_id=root_id or job_id,
            parent_id=parent_id if parent_id != job_id else None,
            group_id=options.get("group_id"),
            metadata=f'{{"data":{{"args":{written[0]},"kwargs":{written[1]}}}}}',
            headers=self._headers_of(task_id, str(delivery), tenant, args, kwargs, options),
            properties=self._properties_of(task_id, reply_to),
            body=self._body_of(written),
        )
        job = PlainJob(
            params=params, is_new=not options.get("task_id"), made=self._made(params, args, kwargs)
        )
        self._repeating(lambda _: hand_over(self._database, params, lambda parcel: self._write(job, parcel)))
        return task_id

    def _made(self, params: Mapping[str, Any], args: Any, kwargs: Any) -> Callable[[], Submitted]:
        """Give what makes the event of it, which hardly anybody asks for."""

        def made() -> Submitted:
            own = {name: params[name] for name in _OWN_FIELDS if name in params}
            return Submitted(
                key=JobKey(tenant=params["tenant"], job_id=params["job_id"]),
                **own | {"metadata": {"data": {"args": list(args), "kwargs": dict(kwargs)}}},
                **self._fields,
            )

        return made

    def _tenant(self, options: Mapping[str, Any]) -> TenantId:
        if (named := options.get("tenant")) is not None:
            return tenant_named(str(named))
        run = current_run(self._app)
        return (inherited_tenant() if run is None else run.key.tenant) or SYSTEM_TENANT

    def _repeating(self, write: Any) -> Any:
        return repeating(write, None, self._retry)

    def _write(self, job: PlainJob, parcel: Parcel) -> bool:
        bulk, outcome, told = self._app.open_bulk, Outcome.CREATED, job.params["task_id"]
        key = JobKey(tenant=job.params["tenant"], job_id=job.params["job_id"])
        if bulk is not None and bulk.takes_plain(key.job_id):
            bulk.add_plain(job, parcel, self._repeating)
        else:
            outcome = outcome_of(key, self._app.recorder.record_plain(job, parcel))
        self._app.note_sent(Sent(outcome=outcome, key=key, task_id=told, external_id=told))
        return outcome is Outcome.CREATED

    @property
    def is_stale(self) -> bool:
        """Whether what it depends on has changed."""
        return self._traits_now() != self._traits

    # -- whether it is such a message

    def _fits(self, args: Any, kwargs: Any, options: Mapping[str, Any]) -> bool:
        app, index, group_id = self._app, options.get("group_index"), options.get("group_id")
        return (
            self._common(options) == self._options
            and type(args) in (tuple, list)
            and type(kwargs) is dict
            and is_simple(args)
            and is_simple(kwargs)
            and all(type(name) is str for name in kwargs)
            and (index is None or type(index) is int)
            and (
                group_id is None or (type(group_id) is str and group_id.isascii() and group_id.isprintable())
            )
            and app.caller_connection is None
            and not self.is_stale
            and self._amqp.direct.leads_to(self._direct)
            and _encoder_of(self._serializer) == self._encoder
        )

    def _traits_now(self) -> tuple[Any, ...]:
        """Give what else a message depends on, and what may be changed in between."""
        task, app = self._task, self._app
        router = property_of(self._amqp, "router")
        return (
            task.max_retries, getattr(task, "engine", None), getattr(task, "track", None), app.default_engine,
            id(router), len(getattr(router, "routes", ())),
        )  # fmt: skip

    # -- its text

    def _headers_of(
        self, task_id: str, delivery: str, tenant: str, args: Any, kwargs: Any, options: Mapping[str, Any]
    ) -> str:
        group_id, index, parent_id = (options.get(name) for name in ("group_id", "group_index", "parent_id"))
        amqp, told = self._amqp, plain_reprs(args, kwargs)
        return self._headers % {
            "id": f'"{task_id}"',
            "group": "" if group_id is None else f',"group":{_text(group_id)}',
            "group_index": "" if index is None else f',"group_index":{index}',
            "root_id": f'"{options.get("root_id") or task_id}"',
            "parent_id": "" if parent_id is None else f',"parent_id":"{parent_id}"',
            "argsrepr": _text(told.get("argsrepr") or self._repr_of(args, amqp.argsrepr_maxsize)),
            "kwargsrepr": _text(told.get("kwargsrepr") or self._repr_of(kwargs, amqp.kwargsrepr_maxsize)),
            "origin": _origin(os.getpid()),
            "tenant": _text(tenant),
            "delivery": f'"{delivery}"',
        }

    def _repr_of(self, value: Any, size: int) -> str:
        return str(saferepr(value, size, maxlevels=self._max_depth))

    def _properties_of(self, task_id: str, reply_to: str) -> str:
        return self._properties % {"correlation_id": f'"{task_id}"', "reply_to": _text(reply_to)}

    def _body_of(self, written: tuple[str, str]) -> bytes:
        return f"[{written[0]}, {written[1]}{self._embedded}".encode()

    @staticmethod
    def _common(options: Mapping[str, Any]) -> dict[str, Any]:
        """Give the options that all its messages have."""
        return {
            name: value
            for name, value in options.items()
            if name not in _OWN and (value is not None or name not in _NOTHING_IF_NONE)
        }


def _json_of(values: Any) -> str:
    """Write simple values (`fields.is_simple`) as kombu does."""
    return f"[{', '.join([_json_of_one(each) for each in values])}]"


def _pairs_of(values: Mapping[str, Any]) -> str:
    return f"{{{', '.join([f'{_text(name)}: {_json_of_one(each)}' for name, each in values.items()])}}}"


def _json_of_one(value: Any) -> str:
    if type(value) is str:
        return _text(value)
    return _NAMES[value] if value is None or value is True or value is False else int.__repr__(value)


def _with_gaps(
    told: Mapping[str, Any], own: frozenset[str] | set[str], absent: frozenset[str] = frozenset()
) -> str:
    """Write a JSON object as a format, with gaps (`%(name)s`) for the values of some keys.

    Of a key that may be absent the gap takes the comma before it and the key, too.
    """
    parts = []
    for name, value in told.items():
        key = _text(name).replace("%", "%%")
        if name in absent:
            parts.append(f"%({name})s")
        elif name in own:
            parts.append(f",{key}:%({name})s")
        elif name == HEADER:
            parts.append(f",{key}:{_with_gaps(value, {'tenant', 'delivery'})}")
        else:
            parts.append(f",{key}:{_compact(value).replace('%', '%%')}")
    return "{" + "".join(parts)[1:] + "}"


@lru_cache(maxsize=1)
def _origin(_: int) -> str:
    """Give the name of this process as Celery has it; one that is forked off has another."""
    return _text(anon_nodename())


def _encoder_of(serializer: str) -> Any:
    """Give kombu's own encoder for JSON; None: it is another one."""
    codec = _serialization.registry._encoders.get(serializer)
    return codec if codec is not None and codec.encoder is kombu_json.dumps else None


def _uuids(options: Mapping[str, Any]) -> tuple[UUID, UUID | None, UUID | None] | None:
    """Give the ids of the job, its root and its parent; None: one of them is no UUID as it is usually spelt."""
    found: list[UUID | None] = []
    for name in ("task_id", "root_id", "parent_id"):
        text = options.get(name) or None
        if text is None:
            found.append(None)
            continue
        try:
            known = UUID(text)
        except (ValueError, TypeError, AttributeError):
            return None
        if str(known) != text:
            return None
        found.append(known)
    return found[0] or new_job_id(), found[1], found[2]


def property_of(amqp: Any, name: str) -> Any:
    """Give one of its cached properties; kombu's take a lock each time."""
    return amqp.__dict__[name] if name in amqp.__dict__ else getattr(amqp, name)


def may_vary(name: str, value: Any) -> bool:
    """Whether a message sent with this option may become a template."""
    return name in TEMPLATE_OPTIONS or (value is None and name in _NOTHING_IF_NONE)
