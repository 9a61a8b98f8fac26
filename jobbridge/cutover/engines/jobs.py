"""One batch of jobs from one engine to the other, in one transaction.

Rows are locked first, and messages after that; nobody is waited for, so nobody is waited for in a circle. What a worker
has taken, or another transaction holds, stays where it is and is told.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

from jobbridge.broker import StoredMessage, delete_messages, hold_waiting, store_messages
from jobbridge.core.events import Moved
from jobbridge.core.keys import Engine
from jobbridge.core.light import activity_id_in
from jobbridge.cutover.messages import Unreadable, delivery_in, to_envelope, to_message
from jobbridge.store.jobs import steps
from jobbridge.store.moves import jobs as moves
from jobbridge.store.rules.holds import hold_messages

if TYPE_CHECKING:
    from jobbridge.app.application import Celery
    from jobbridge.cutover.report import Scope
    from jobbridge.postgres.caller_connection import DriverConnection
    from jobbridge.store.moves.jobs import MovableJob


@dataclass(kw_only=True, slots=True)
class Batch:
    """What one transaction moved.

    Attributes:
        moved: As they were before.
        unreadable: Why some cannot be moved, by task id.
        last: Where the next page begins; None: there is none.
    """

    moved: list[MovableJob] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)
    last: tuple[datetime, UUID] | None = None


def move_batch(app: Celery, scope: Scope, *, before: datetime, after: tuple[datetime, UUID]) -> Batch:
    """Move a page of jobs that wait.

    Raises:
        DatabaseUnavailable, DatabaseError: Then nothing of it was moved, or all of it.
    """
    batch = Batch()
    with app.database.transaction() as connection:
        jobs = moves.take(
            connection, scope.selection(scope.origin), before=before, after=after, limit=scope.batch
        )
        if len(jobs) == scope.batch:
            batch.last = jobs[-1].place
        if scope.to is Engine.TEMPORAL:
            _to_temporal(app, connection, jobs, batch)
        else:
            _to_celery(app, connection, jobs, batch)
    return batch


def _to_temporal(app: Celery, connection: DriverConnection, jobs: list[MovableJob], batch: Batch) -> None:
    """Take the broker's messages away, and owe them to the relay: it delivers what the row has."""
    held = defaultdict(list)
    for message in hold_waiting(connection, [job.task_id for job in jobs]):
        held[message.correlation_id, delivery_in(message.headers)].append(message)
    taken: list[int] = []
    for job in jobs:
        messages = held.get((job.task_id, str(job.delivery)))
        if not messages:
            continue  # a worker has it
        delivery = uuid.uuid4()
        try:
            envelope = to_envelope(app, job, messages[0], delivery)
        except Unreadable as error:
            batch.unreadable[job.task_id] = str(error)
            continue
        event = Moved(
            key=job.key,
            attempt=job.attempt,
            delivery=job.delivery,
            new_delivery=delivery,
            engine=Engine.TEMPORAL,
            message=envelope.to_json(),
        )
        if _record(app, connection, job, event, batch):
            taken += _ids(messages)
    delete_messages(connection, taken)


def _to_celery(app: Celery, connection: DriverConnection, jobs: list[MovableJob], batch: Batch) -> None:
    """Give the broker the messages that rows have: what Temporal still does has the old delivery, and is refused."""
    stored: list[StoredMessage] = []
    for job in jobs:
        delivery = uuid.uuid4()
        try:
            message = to_message(app, job, delivery)
        except Unreadable as error:
            batch.unreadable[job.task_id] = str(error)
            continue
        event = Moved(
            key=job.key,
            attempt=job.attempt,
            delivery=job.delivery,
            new_delivery=delivery,
            engine=Engine.CELERY,
            external_id=job.task_id if activity_id_in(job.external_id) else None,
        )
        if _record(app, connection, job, event, batch):
            stored.append(message)
    store_messages(connection, stored)
    hold_messages(connection, [job.key.job_id for job in batch.moved])


def _record(app: Celery, connection: DriverConnection, job: MovableJob, event: Moved, batch: Batch) -> bool:
    if not app.recorder.record(event, connection).applied:
        return False  # cannot be, while its row is locked; whoever reads this should not have to know
    told = {
        "to": event.engine.value,
        "delivery": str(job.delivery),
        "external_id": job.external_id,
        "external_run_id": job.external_run_id,
    }
    steps.note(connection, job.key, steps.MOVED, told, attempt=job.attempt)
    batch.moved.append(job)
    return True


def _ids(messages: list[StoredMessage]) -> Iterator[int]:
    return (message.id for message in messages if message.id is not None)
