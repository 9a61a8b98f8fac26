"""From a Celery message to a job: row and message together.

What if the process dies between two steps?

* CE, broker and tables in one database: row and message are one transaction. Nothing is between them.
* CE, another broker (Redis, RabbitMQ, the stock SQL one): the row is committed as `pending`, then the message sent.
  Death between: a `pending` row and no message; the row shows it, and no worker runs it.
* EE: the row holds the message and is committed as `pending`; then the workflow is started, then the row
  says `queued`. Death before the start: the relay starts it. Death after: the relay starts it again, under the same
  workflow id, which Temporal refuses while it runs; when it has closed, the claim of the row refuses the attempt.
* A retry or `replace` from inside a running attempt: the same transaction moves the row on to the new delivery. An old
  message that comes back (the worker died before its ack) holds the old delivery and does not start.
"""

from __future__ import annotations

import base64
import json
import logging
import uuid
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from datetime import datetime
from typing import TYPE_CHECKING, Any

from kombu import serialization
from kombu.common import Broadcast
from kombu.exceptions import OperationalError
from kombu.utils import json as kombu_json
from kombu.utils.encoding import str_to_bytes
from kombu.utils.functional import retry_over_time

from jobbridge.app.execution import current_run, in_pool_child
from jobbridge.app.options import JobOptions
from jobbridge.broker import publishing_on
from jobbridge.core.envelope import HEADER, Envelope
from jobbridge.core.events import Accepted, Continuation, Failed, Recorded, Submitted
from jobbridge.core.keys import SYSTEM_TENANT, Engine, JobKey, TenantId, job_id_for
from jobbridge.core.status import JobStatus
from jobbridge.errors import ConfigurationError, DatabaseUnavailable, EngineUnavailable, UnsupportedOption

if TYPE_CHECKING:
    from jobbridge.app.application import Celery

logger = logging.getLogger(__name__)

#: Arguments are kept in the row for people to read; larger ones only in the message.
READABLE_LIMIT = 64 * 1024


class JobProducer:
    """A kombu producer for one task message, which makes the job.

    Celery's sender publishes the task message first; what it publishes after that (the `task-sent` event) goes to
    the real producer untouched.
    """

    def __init__(self, app: Celery, producer: Any, name: str, options: JobOptions, *, queue: Any) -> None:
        self._app = app
        self._producer = producer
        self._name = name
        self._options = options
        self._queue = queue
        self._sent = False
        self._publication: JobPublication | None = None
        self._tenant: TenantId | None = options.tenant

    def __getattr__(self, name: str) -> Any:
        return getattr(self._producer, name)

    def prepared(self, message: Any) -> Any:
        """Check the message and bring it into the form that is sent; nothing is written when it is refused.

        Raises:
            InvalidJobData: The data does not fit the handler's model.
            TenantRequired: The handler needs a tenant and none is given.
            UnsupportedOption: Protocol 1 has no headers, so its messages cannot be followed.
        """
        headers, properties, body, sent_event = message
        if not headers.get("id"):
            raise UnsupportedOption(
                "Messages of Celery's task protocol 1 cannot become jobs.", hint="Set task_protocol to 2."
            )
        prepare = getattr(self._app._tasks.get(self._name), "prepare_arguments", None)
        if prepare is not None:
            args, kwargs, embed = body
            args, kwargs, self._tenant = prepare(args, kwargs, self._tenant)
            body = (args, kwargs, embed)
        return message._replace(headers=headers, properties=properties, body=body, sent_event=sent_event)

    def publish(self, body: Any, **options: Any) -> Any:
        if self._sent:
            return self._producer.publish(body, **options)
        if self._is_broadcast():
            options["headers"][HEADER] = {"untracked": True}
            result = self._producer.publish(body, **options)
        else:
            # Celery may call again after an error: the same publication, so the same delivery.
            self._publication = self._publication or JobPublication(
                self._app, self._producer, self._name, self._options, self._tenant, body, options
            )
            result = self._publication.send()
        self._sent = True
        return result

    def _is_broadcast(self) -> bool:
        # One message, many workers: not one job.
        queue = self._queue
        if isinstance(queue, str):
            queue = self._app.amqp.queues.get(queue)
        exchange = getattr(queue, "exchange", None)
        return isinstance(queue, Broadcast) or getattr(exchange, "type", None) == "fanout"


class JobPublication:
    """One task message on its way to its engine."""

    def __init__(
        self,
        app: Celery,
        producer: Any,
        name: str,
        options: JobOptions,
        tenant: TenantId | None,
        body: Any,
        publish_options: dict[str, Any],
    ) -> None:
        self._app = app
        self._producer = producer
        self._name = name
        self._options = options
        self._body = body
        self._publish_options = publish_options
        self._headers: dict[str, Any] = publish_options["headers"]
        self._task_id = str(self._headers["id"])
        self._task = app._tasks.get(name)
        self._delivery = uuid.uuid4()
        self._parent_run = current_run(app)
        self._own_run = (
            self._parent_run if self._parent_run and self._parent_run.task_id == self._task_id else None
        )
        self._engine = self._chosen_engine()
        self._key = JobKey(tenant=self._chosen_tenant(tenant), job_id=job_id_for(self._task_id))
        self._headers[HEADER] = {
            "tenant": self._key.tenant,
            "delivery": str(self._delivery),
            "engine": self._engine.value,
        }

    def send(self) -> Any:
        if self._engine is Engine.TEMPORAL:
            return self._send_to_temporal()
        if self._app.shares_database_with_broker:
            return self._send_with_row()
        return self._send_to_other_broker()

    # -- deciding

    def _chosen_engine(self) -> Engine:
        if self._options.engine is not None:
            return self._options.engine
        if self._own_run is not None:
            return self._own_run.engine  # a retry stays where it runs
        declared = getattr(self._task, "engine", None)
        return Engine.parse(str(declared)) if declared else self._app.default_engine

    def _chosen_tenant(self, tenant: TenantId | None) -> TenantId:
        if tenant is not None:
            return tenant
        return self._parent_run.key.tenant if self._parent_run else SYSTEM_TENANT

    def _submitted(self, status: JobStatus, message: Any = None) -> Submitted:
        headers = self._headers
        task = self._task
        max_retries = getattr(task, "max_retries", None)
        eta = _instant(headers.get("eta"))
        return Submitted(
            key=self._key,
            task_id=self._task_id,
            type=self._name,
            engine=self._engine,
            delivery=self._delivery,
            queue=self._queue_name,
            status=JobStatus.SCHEDULED if eta is not None and status is JobStatus.QUEUED else status,
            continues=self._continuation(),
            priority=int(self._publish_options.get("priority") or 0),
            run_at=eta,
            expires_at=_instant(headers.get("expires")),
            max_attempts=None if max_retries is None else max_retries + 1,
            user_id=self._options.user_id,
            metadata={**self._readable_arguments(), **(self._options.job_metadata or {})},
            external_id=self._task_id,
            message=message,
            root_id=_optional_id(headers.get("root_id")),
            parent_id=_optional_id(headers.get("parent_id")),
            group_id=headers.get("group"),
        )

    def _continuation(self) -> Continuation | None:
        run = self._own_run
        if run is None or run.attempt is None:
            return None
        return Continuation(
            attempt=run.attempt, is_retry=int(self._headers.get("retries") or 0) > run.retries
        )

    @property
    def _queue_name(self) -> str:
        routing_key = self._publish_options.get("routing_key")
        return str(routing_key or self._app.conf.task_default_queue)

    def _readable_arguments(self) -> dict[str, Any]:
        args, kwargs, _ = self._body
        readable = getattr(self._task, "readable_arguments", _plain_arguments)(args, kwargs)
        try:
            text = kombu_json.dumps(readable)
        except (TypeError, ValueError, UnicodeDecodeError):
            text = ""
        if not text or len(text) > READABLE_LIMIT or "\\u0000" in text:
            return {"argsrepr": self._headers.get("argsrepr"), "kwargsrepr": self._headers.get("kwargsrepr")}
        return {"data": json.loads(text)}

    # -- the broker

    def _send_with_row(self) -> Any:
        return self._repeating(self._write_row_and_message)

    def _repeating(self, write: Callable[[Any], Any]) -> Any:
        """Write, and try again as the publish policy says while Postgres is away.

        A second try with the same delivery finds its own row when the first one's commit went through unseen. In the
        caller's transaction there is no second try: it is the caller's.
        """
        caller = self._app.caller_connection
        if caller is not None or not self._publish_options.get("retry"):
            return write(caller)
        policy = self._publish_options.get("retry_policy") or {}
        return retry_over_time(
            write,
            (OperationalError, DatabaseUnavailable),
            args=(None,),
            max_retries=policy.get("max_retries", 3),
            interval_start=policy.get("interval_start", 0),
            interval_step=policy.get("interval_step", 0.2),
            interval_max=policy.get("interval_max", 1),
        )

    def _write_row_and_message(self, caller: Any) -> Any:
        options = {**self._publish_options, "retry": False, "headers": dict(self._headers)}
        with ExitStack() as stack:
            connection = stack.enter_context(self._app.database.transaction(caller))
            recorded = self._app.recorder.record(self._submitted(JobStatus.QUEUED), connection)
            if self._is_repeated(recorded):
                return None
            stack.enter_context(publishing_on(connection, is_brief=caller is None))
            return self._producer.publish(self._body, **options)

    def _is_repeated(self, recorded: Recorded) -> bool:
        if recorded.applied:
            if self._own_run is not None and recorded.outcome == "continued":
                self._own_run.continued = True
            return False
        logger.warning(
            "job.deduplicated",
            extra={"job_id": str(self._key.job_id), "tenant": self._key.tenant, "reason": recorded.reason},
        )
        return True

    def _send_to_other_broker(self) -> Any:
        if self._app.caller_connection is not None:
            raise UnsupportedOption(
                "The broker is not in the database of the caller's transaction, so it cannot be part of it.",
                hint="Use a jobbridge+postgresql:// broker on the same database.",
            )
        recorded = self._app.recorder.record(self._submitted(JobStatus.PENDING))
        if self._is_repeated(recorded):
            return None
        try:
            result = self._producer.publish(self._body, **self._publish_options)
        except Exception as error:
            self._app.recorder.record(
                Failed(
                    key=self._key,
                    attempt=None,
                    error=f"Could not be sent: {error!r}",
                    delivery=self._delivery,
                )
            )
            raise
        self._app.recorder.record(
            Accepted(key=self._key, delivery=self._delivery, engine=self._engine, external_id=self._task_id)
        )
        return result

    # -- Temporal

    def _send_to_temporal(self) -> None:
        delivery = self._app.delivery(Engine.TEMPORAL)  # before anything is written: its extra may be missing
        envelope = self._envelope()
        continues = self._own_run is not None and self._own_run.engine is Engine.TEMPORAL
        status = JobStatus.QUEUED if continues else JobStatus.PENDING
        submitted = self._submitted(status, envelope.to_json())

        def write(caller: Any) -> Recorded:
            with self._app.database.transaction(caller) as connection:
                return self._app.recorder.record(submitted, connection)

        recorded = self._repeating(write)
        is_callers = self._app.caller_connection is not None
        if self._is_repeated(recorded) or continues or is_callers or in_pool_child():
            return  # the running workflow, or the relay, takes it from the row
        try:
            accepted = delivery.deliver(envelope)
        except EngineUnavailable as error:
            logger.warning("job.waits_for_temporal", extra={"job_id": self._task_id, "error": str(error)})
            return
        self._app.recorder.record(accepted)

    def _envelope(self) -> Envelope:
        options = self._publish_options
        serializer = options.get("serializer") or self._app.conf.task_serializer
        content_type, content_encoding, encoded = serialization.dumps(self._body, serializer=serializer)
        is_json = content_type == "application/json"
        text = str_to_bytes(encoded)
        return Envelope(
            id=self._task_id,
            task=self._name,
            tenant=self._key.tenant,
            delivery=str(self._delivery),
            queue=self._queue_name,
            eta=self._headers.get("eta"),
            expires=self._headers.get("expires"),
            priority=int(options.get("priority") or 0),
            timelimit=self._time_limits(),
            headers=_as_json(self._headers),
            properties=_as_json(
                {k: options[k] for k in ("correlation_id", "reply_to", "priority") if options.get(k)}
            ),
            content_type=content_type,
            content_encoding=content_encoding,
            arguments=json.loads(text) if is_json else None,
            body=None if is_json else base64.b64encode(text).decode("ascii"),
        )

    def _time_limits(self) -> tuple[float | None, float | None]:
        hard, soft = self._headers.get("timelimit") or (None, None)
        return hard or getattr(self._task, "time_limit", None), soft or getattr(
            self._task, "soft_time_limit", None
        )


def _plain_arguments(args: Any, kwargs: Any) -> dict[str, Any]:
    return {"args": list(args), "kwargs": dict(kwargs)}


def _as_json(document: Mapping[str, Any]) -> dict[str, Any]:
    try:
        plain = json.loads(kombu_json.dumps(document))
    except TypeError as error:
        raise ConfigurationError(
            f"A header of the message cannot be written as JSON: {error}.",
            hint="Send headers of plain values.",
        ) from None
    return dict(plain)


def _instant(text: str | datetime | None) -> datetime | None:
    if text is None or isinstance(text, datetime):
        return text
    return datetime.fromisoformat(text)


def _optional_id(task_id: str | None) -> uuid.UUID | None:
    return None if task_id is None else job_id_for(task_id)
