"""The one publish point: everything that Celery sends passes here."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

from celery.app.amqp import AMQP as CeleryAMQP  # noqa: N811  (Celery's name)

from jobbridge.app.options import JobOptions
from jobbridge.app.publish.direct import DirectWay
from jobbridge.app.publish.message.checks import check_message
from jobbridge.app.publish.producer import JobProducer
from jobbridge.app.publish.short_way import ShortWay

_Base: Any = CeleryAMQP  # the stubs leave out what is overridden here


class AMQP(_Base):  # type: ignore[misc]  # see _Base
    """Celery's AMQP whose task messages become jobs.

    Celery's own sender still does all that it does (routing, signals, serializer, `task-sent` event). It is given a
    producer that, where the sender publishes, writes the job row and hands the message to its engine.
    """

    def _create_task_sender(self) -> Callable[..., Any]:
        send = super()._create_task_sender()
        app = self.app
        self._short_way = ShortWay(app, self)

        def send_task_message(producer: Any, name: str, message: Any, **options: Any) -> Any:
            job_options = JobOptions.take_from(options)
            if message.headers.get("id"):
                check_message(name, message.headers, options)
            job_producer = JobProducer(app, producer, name, job_options, queue=options.get("queue"))
            prepared, observer = job_producer.prepared(message), app.observer
            if observer is None:
                return send(job_producer, name, prepared, **options)
            queue, former = _name_of(options.get("queue")), job_options.former_trace
            with observer.sending(name, prepared.headers, queue=queue, former=former):
                return send(job_producer, name, prepared, **options)

        self._own_sender = send_task_message
        return send_task_message

    @cached_property
    def direct(self) -> DirectWay:
        """To which queues messages may go without kombu."""
        return DirectWay(self.app)

    def send_shortly(self, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """Send a task as the app's `send_task` does; None: it has to go Celery's way, and nothing was done."""
        if type(self) is not AMQP or self.send_task_message is not self._own_sender:
            return None
        return self._short_way.send(arguments, options)


def _name_of(queue: Any) -> str:
    return str(getattr(queue, "name", queue) or "")
