"""That this worker takes nothing new from paused queues (`store.workers.queue_pauses`), on both engines.

And nothing from any queue once the tables have stopped serving its release (`store.schema_range`): in the same way,
for the worker is told of both on one channel, and reads both with one statement.

The thread that keeps the worker's presence hears of changes, on the session that it has anyway, and looks for itself
every few seconds. What follows is done on Celery's own thread, by what `celery control cancel_consumer` uses: the
broker's consumer lets go of the queue, and gives back what was not delivered; Temporal's poller of it ends. The queue
stays among those that the worker serves. What it has taken ahead is refused when
it would start (`transitions.GATE`), and goes back (`execution.claim`).

What if …                                             then
… the worker starts while a queue is paused           the pauses are read before it first consumes
… Postgres goes away                                  what is known holds; it is read again with the next session
… a NOTIFY is lost                                    the next look finds the change
… the broker's connection is lost                     the new consumer is told before it consumes
… the worker dies between the row and its word        its messages go back, as ever; the next worker reads the row
… a message comes before the worker has heard         its job does not start; it goes back after a moment
… the queue is resumed as a message goes back         it is taken again, as any other
… the tables serve it again (a way down)              it takes from its queues again
… somebody cancels or adds the consumer by hand       cancelled by hand stays so after a resume; added by hand lasts
                                                      until the next look, for a pause is for all workers
"""

from __future__ import annotations

import logging
from typing import Any

from celery import bootsteps

from jobbridge.errors import DatabaseError
from jobbridge.postgres.caller_connection import DriverConnection
from jobbridge.store.workers.queue_pauses import find_obstacles

logger = logging.getLogger(__name__)

_StartStopStep: Any = bootsteps.StartStopStep  # untyped


class QueuePausing:
    """What one worker knows of paused queues, and what it has done about them.

    `look` is the presence's thread's, the rest is Celery's own.
    """

    def __init__(self) -> None:
        self._names: frozenset[str] = frozenset()
        self._misfit: DatabaseError | None = None
        self._cancelled: set[str] = set()
        self._consumer: Any = None

    def look(self, connection: DriverConnection) -> None:
        """Read which queues are to be left alone, and have the worker act on it."""
        before = self._misfit
        self._names, self._misfit = find_obstacles(connection)
        if self._misfit is not None and before is None:
            logger.error("This worker takes no more jobs. %s %s", self._misfit, self._misfit.hint)
        consumer = self._consumer
        if consumer is not None and (self._names or self._misfit or self._cancelled):
            consumer.call_soon(self._apply, consumer)

    def begin(self, consumer: Any) -> None:
        """Leave out what is paused, before the consumer first consumes."""
        self._consumer = consumer
        self._apply(consumer)

    def _apply(self, consumer: Any) -> None:
        tasks = consumer.task_consumer
        if tasks is None:
            return  # it has no connection, and will begin anew
        consumed = {queue.name for queue in tasks.queues}
        names = self._names if self._misfit is None else consumed | self._cancelled
        for queue in sorted(consumed & names):
            tasks.cancel_by_queue(queue)
            if queue not in self._cancelled:
                logger.info("worker.queue_paused", extra={"queue": queue})
            self._cancelled.add(queue)
        for queue in self._cancelled - names:
            self._cancelled.discard(queue)
            self._take_again(consumer, queue)

    def _take_again(self, consumer: Any, queue: str) -> None:
        """Consume again, unless somebody has cancelled it by hand meanwhile."""
        tasks, served = consumer.task_consumer, consumer.app.amqp.queues.consume_from
        if queue in served and queue not in {each.name for each in tasks.queues}:
            tasks.add_queue(served[queue])
            tasks.consume()
            logger.info("worker.queue_resumed", extra={"queue": queue})


class RespectPauses(_StartStopStep):  # type: ignore[misc]  # untyped base
    """Leaves paused queues out whenever Celery's consumer has made its task consumer, before that consumes."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, consumer: Any) -> None:
        if consumer.app.presence is not None:
            consumer.app.presence.pausing.begin(consumer)
