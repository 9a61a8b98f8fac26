"""What Celery's sender is given instead of a producer, so that its message becomes a job."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from kombu.exceptions import OperationalError

from jobbridge.app.options import JobOptions
from jobbridge.app.publish.direct import over_kombu, store
from jobbridge.app.publish.message.checks import with_zones
from jobbridge.app.publish.message.size import check_stored
from jobbridge.app.publish.publisher import JobPublication
from jobbridge.app.publish.repeating import repeating
from jobbridge.app.publish.rules.declared import is_ruled
from jobbridge.app.publish.rules.unique import unique_of
from jobbridge.app.routing import is_broadcast
from jobbridge.broker import PUBLISH_TO_QUEUE, publishing_by, publishing_on
from jobbridge.core.enqueue import check_queue
from jobbridge.core.envelope import HEADER
from jobbridge.core.handlers import handler_of
from jobbridge.core.keys import Engine, TenantId
from jobbridge.errors import UnsupportedOption

if TYPE_CHECKING:
    from jobbridge.app.application import Celery
    from jobbridge.app.publish.bulk import Bulk
    from jobbridge.broker import Parcel

logger = logging.getLogger(__name__)


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
        self.publication: JobPublication | None = None  #: Of a job; None for what has no row.
        self._tenant: TenantId | None = options.tenant

    def __getattr__(self, name: str) -> Any:
        return getattr(self._producer, name)

    def prepared(self, message: Any) -> Any:
        """Check the message and bring it into the form that is sent; nothing is written when it is refused.

        Raises:
            InvalidJobData: The data does not fit the handler's model.
            TenantRequired: The handler needs a tenant and none is given.
            UnsupportedOption: Protocol 1 has no headers, so its messages cannot be followed; or the queue is one of
                remote control.
        """
        if self._queue is not None:
            check_queue(
                str(getattr(self._queue, "name", self._queue)), event_prefix=self._app.conf.event_queue_prefix
            )
        headers, properties, body, sent_event = message
        if not headers.get("id"):
            raise UnsupportedOption(
                "Messages of Celery's task protocol 1 cannot become jobs.", hint="Set task_protocol to 2."
            )
        headers = with_zones(headers)
        task = self._app._tasks.get(self._name)
        if handler_of(task) is not None:
            args, kwargs, embed = body
            args, kwargs, self._tenant = task.prepare_arguments(args, kwargs, self._tenant)
            body = (args, kwargs, embed)
        return message._replace(headers=headers, properties=properties, body=body, sent_event=sent_event)

    def publish(self, body: Any, **options: Any) -> Any:
        if self._sent:
            return self._publish_event(body, options)
        if not self.check(body, options):
            result = self._publish_untracked(body, options)
        else:
            # Celery may call again after an error: the same publication, so the same delivery.
            self.publication = self.publication or JobPublication(
                self._app, self._producer, self._name, self._options, self._tenant, body, options, self._queue
            )
            result = self.publication.send()
            self._app.note_sent(self.publication.sent)
        self._sent = True
        return result

    def check(self, body: Any, options: dict[str, Any]) -> bool:
        """Tell whether it becomes a job, or is a message without a row.

        Raises:
            UnsupportedOption: It can be neither.
        """
        if is_broadcast(self._app, self._queue, options.get("exchange")):
            # One message, many workers: not one job.
            self._refuse_singleton("a message for many workers is not one job")
            self._refuse_rules("a message for many workers is not one job")
            self._refuse_broadcast_on_temporal()
            self._refuse_broadcast_in_chord(body)
            return False
        if self._goes_without_row(body, str(options["headers"]["id"])):
            self._refuse_singleton("it has no row, which would hold the key")
            self._refuse_rules("it has no row, whose end would let others begin")
            return False
        if options["headers"].get("group"):
            self._refuse_singleton("a group waits for each of its members")
        return True

    def _publish_event(self, body: Any, options: dict[str, Any]) -> Any:
        """Send what Celery tells of the message: the job is sent, whatever comes of this."""
        try:
            return self._producer.publish(body, **options)
        except (OperationalError, OSError) as error:
            logger.warning("job.sent_event_lost", extra={"task": self._name, "error": str(error)})
            return None

    def _publish_untracked(self, body: Any, options: dict[str, Any]) -> Any:
        options["headers"][HEADER] = {"untracked": True}
        caller, bulk = self._app.caller_connection, self._app.open_bulk
        if not self._app.shares_database_with_broker:
            return over_kombu(self._app, self._producer, body, options)
        with publishing_on(caller) if caller is not None else nullcontext():
            if bulk is not None and bulk.is_on(caller) and not options.get("exchange"):
                return self._store_untracked(body, options, bulk)
            if self._producer is None and self._app.amqp.direct.leads_to(options):
                return self._store_untracked(body, options, None)
            once = {} if caller is None else {"retry": False}
            return over_kombu(self._app, self._producer, body, options | once)

    def _store_untracked(self, body: Any, options: dict[str, Any], bulk: Bulk | None) -> Any:
        app, direct = self._app, self._app.amqp.direct

        def again(work: Callable[[Any], Any]) -> Any:
            return repeating(work, app.caller_connection, options)

        def write(parcel: Parcel) -> bool:
            check_stored(app, self._name, parcel.parameters)
            if bulk is None:
                store(app, PUBLISH_TO_QUEUE, parcel.parameters)
            else:
                bulk.add_untracked(parcel, again)
            return bulk is None

        def send(_: Any) -> Any:
            if direct.leads_to(options):
                return direct.send(body, options, write)
            with publishing_by(write):
                return over_kombu(app, self._producer, body, options | {"retry": False})

        return again(send)

    def _goes_without_row(self, body: Any, task_id: str) -> bool:
        """Tell whether its task, its caller, or the attempt that it goes on from chose to do without the record.

        The part of a chord has a row all the same: its end is what counts it.
        """
        running = self._app.current_worker_task
        told = self._options.track
        if told is None and running is not None and running.request.id == task_id:
            told = not (getattr(running.request, HEADER, None) or {}).get("untracked")
        if told is None:
            told = getattr(self._app._tasks.get(self._name), "track", True)
        if told or body[2].get("chord"):
            return False
        engine = self._options.engine or self._options.default_engine or self._app.default_engine
        if engine is not Engine.CELERY:
            raise UnsupportedOption(
                f"{self._name!r} cannot do without its row on {engine.value}, which has its message from there.",
                hint="Send it with engine='celery', or without track=False.",
            )
        return True

    def _refuse_broadcast_on_temporal(self) -> None:
        declared, options = Engine.named_by(self._app._tasks.get(self._name)), self._options
        engine = options.engine or declared or options.default_engine or self._app.default_engine
        if engine is Engine.TEMPORAL:
            raise UnsupportedOption(
                f"{self._name!r} cannot go to many workers at once on Temporal, which gives a job to one.",
                hint="Send it with engine='celery' to `celery worker`s that serve the queue, or once for each queue.",
            )

    def _refuse_broadcast_in_chord(self, body: Any) -> None:
        if body[2].get("chord"):  # it has no row that would count, so the chord would wait for ever
            raise UnsupportedOption(
                f"{self._name!r} cannot go to many workers at once as a part of a chord, which waits for one of it.",
                hint="Send the broadcast beside the chord, or the part to a queue of which one worker takes it.",
            )

    def _refuse_singleton(self, reason: str) -> None:
        key, task = self._options.singleton_key, self._app._tasks.get(self._name)
        if key is not None:
            raise UnsupportedOption(
                f"{self._name!r} cannot have the singleton_key {key!r}: {reason}.",
                hint="Send it without the key.",
            )
        if (rule := unique_of(self._app, task, self._name, self._options)) is not None:
            raise UnsupportedOption(
                f"{self._name!r} cannot have {rule.option}: {reason}.",
                hint=f"Send it with {rule.option}=False.",
            )

    def _refuse_rules(self, reason: str) -> None:
        if is_ruled(self._app, self._app._tasks.get(self._name), self._name, self._options):
            raise UnsupportedOption(
                f"{self._name!r} cannot have rules across the fleet: {reason}.",
                hint="Send it with concurrency=False and rate_limit=False.",
            )
