"""Takes what waits at an old broker over into ours.

A page of messages becomes rows and messages in one transaction; after its commit they are removed there. Killed between
the two, they are there still, and the next time their rows are found: then they are only removed.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jobbridge.broker import StoredMessage, store_messages
from jobbridge.core.events import Moved, Requeued
from jobbridge.core.keys import Engine
from jobbridge.core.status import WAITING, JobStatus
from jobbridge.cutover.chords import FoundChords
from jobbridge.cutover.messages import Unreadable, sealed
from jobbridge.cutover.old_message import OldJob, read, stored, submitted
from jobbridge.cutover.report import Report
from jobbridge.cutover.sources.opened import opened
from jobbridge.errors import ConfigurationError
from jobbridge.store.jobs import steps
from jobbridge.store.moves import jobs as moves

if TYPE_CHECKING:
    from jobbridge.app.application import Celery
    from jobbridge.cutover.sources.base import OldMessage, Source
    from jobbridge.postgres.caller_connection import DriverConnection
    from jobbridge.store.moves.jobs import KnownJob

#: So many that cannot be read are named one by one.
_NAMED = 20


def take_over(app: Celery, url: str, *, queues: Sequence[str] | None = None, is_dry: bool = False) -> Report:
    """Take over what waits there.

    Args:
        app: Whose jobs they become.
        url: Of the old broker, as Celery's `broker_url`.
        queues: Only these; None: all that are found.
        is_dry: Only say what there is.

    Raises:
        UnsupportedOption: Such a broker cannot be read.
        ConfigurationError: Workers consume there; or our own broker is elsewhere.
        DatabaseUnavailable: What was committed is taken over; run it again.
    """
    if not app.shares_database_with_broker:
        raise ConfigurationError(
            "The app's own broker is not in the database of its jobs.",
            hint="Set it to jobbridge+postgresql:// on DATABASE_URL first.",
        )
    report = Report()
    with opened(url, app.conf.broker_transport_options or {}) as source:
        known = list(queues) if queues is not None else list(app.amqp.queues)
        named = list(queues) if queues is not None else source.queues(known)
        _refuse_consumers(source, named)
        taking = _TakeOver(app, source, report, is_dry=is_dry)
        routes = _routes(app, named)
        # What falls due while it is read is in its queue afterwards, or on its way: so both are looked at again.
        while taking.take(source.delayed(routes, are_all=queues is None)):
            _take_queues(taking, source, named)
        _take_queues(taking, source, named)
        taking.take(source.held(queues))
        report.notes += source.notes
    taking.tell()
    return report


def _take_queues(taking: _TakeOver, source: Source, queues: Sequence[str]) -> None:
    for queue in queues:
        taking.take(source.pages(queue))


def _routes(app: Celery, queues: Sequence[str]) -> dict[str, list[str]]:
    """Give the routing keys that lead to each queue, as the app declares it; else its own name."""
    declared: Mapping[str, Any] = app.amqp.queues
    routes: dict[str, list[str]] = {}
    for name in queues:
        queue = declared.get(name)
        keys = (
            [queue.routing_key, *(each.routing_key for each in queue.bindings)]
            if queue is not None
            else [name]
        )
        routes[name] = [str(key) for key in keys if key] or [name]
    return routes


def _refuse_consumers(source: Source, queues: Sequence[str]) -> None:
    if count := source.consumers(queues):
        raise ConfigurationError(
            f"{count} worker(s) consume from the old broker: what they take meanwhile could run twice.",
            hint="Stop them, and run this again.",
        )


class _TakeOver:
    """One run, page by page."""

    def __init__(self, app: Celery, source: Source, report: Report, *, is_dry: bool) -> None:
        self._app = app
        self._source = source
        self._report = report
        self._is_dry = is_dry
        self._chords = FoundChords(app)
        self._known_before = 0
        self._left: Counter[str] = Counter()

    def take(self, pages: Iterable[list[OldMessage]]) -> int:
        """Take what there is, and give how many messages that were, those that stay included."""
        count = 0
        for page in pages:
            count += len(page)
            jobs = list(self._readable(page))
            if self._is_dry:
                self._report.moved.update(_waits(job) for job in jobs)
                continue
            taken = self._store(jobs)
            self._source.remove([job.message for job in jobs])
            self._report.moved.update(_waits(job) for job in taken)
            self._known_before += len(jobs) - len(taken)
        return count

    def tell(self) -> None:
        """Complete the report."""
        report = self._report
        for reason, count in self._left.items():
            report.staying[f"left at the old broker: {reason}"] += count
        if self._left:
            report.problems.append(f"{self._left.total()} message(s) were left where they are.")
        if self._known_before:
            report.notes.append(
                f"{self._known_before} message(s) were only removed there: their jobs are here already."
            )
        if self._is_dry:
            return
        for chord in self._chords.incomplete():
            report.notes.append(chord)
        with self._app.database.connection() as connection:
            from jobbridge.cutover.report import Scope

            report.waiting = moves.counts(connection, Scope(to=Engine.CELERY).selection(Engine.CELERY))

    def _readable(self, page: Sequence[OldMessage]) -> Iterator[OldJob]:
        for message in page:
            try:
                yield read(self._app, message)
            except Unreadable as error:
                self._left[str(error)] += 1
                if self._left.total() <= _NAMED:
                    name = message.headers.get("id") or message.properties.get("correlation_id") or "?"
                    self._report.unreadable[f"{message.queue}/{name}"] = str(error)

    def _store(self, jobs: Sequence[OldJob]) -> list[OldJob]:
        """Write a page; gives those of which there was no job here."""
        newest: dict[str, OldJob] = {}
        for job in jobs:
            # A retry that its worker sent before it could acknowledge what it retried: the later one counts.
            if job.task_id not in newest or newest[job.task_id].retries < job.retries:
                newest[job.task_id] = job
        if not newest:
            return []
        taken: list[OldJob] = []
        messages: list[StoredMessage] = []
        with self._app.database.transaction() as connection:
            known = moves.known(connection, [job.key.job_id for job in newest.values()])
            for job in newest.values():
                message = self._record(connection, job, known.get(job.task_id))
                if message is not None:
                    taken.append(job)
                    messages.append(sealed(self._app, message))
                    self._chords.note(connection, job)
            store_messages(connection, messages)
        return taken

    def _record(
        self, connection: DriverConnection, job: OldJob, row: KnownJob | None
    ) -> StoredMessage | None:
        delivery = uuid.uuid4()
        key = job.key if row is None else row.key
        told: dict[str, Any] = {"to": Engine.CELERY.value, "from": "old broker", "queue": job.message.queue}
        if row is None:
            event: Any = submitted(self._app, job, delivery)
        elif self._is_to_be_moved(connection, job, row):
            event = Moved(
                key=key,
                attempt=row.attempt,
                delivery=_known(row),
                new_delivery=delivery,
                engine=Engine.CELERY,
            )
            told["delivery"] = str(row.delivery)
        else:
            return None
        if not self._app.recorder.record(event, connection).applied:
            return None
        steps.note(connection, key, steps.MOVED, told)
        return stored(job, delivery, key)

    def _is_to_be_moved(self, connection: DriverConnection, job: OldJob, row: KnownJob) -> bool:
        """Whether its row is of JobBridge over the old broker, and goes by this message."""
        if row.broker is None or row.delivery is None or job.delivery != str(row.delivery):
            return False
        if row.status is JobStatus.PROCESSING:  # its worker is gone, and had not acknowledged it
            lost = Requeued(key=row.key, attempt=row.attempt, reason="Its worker was stopped.")
            return self._app.recorder.record(lost, connection).applied
        return row.status in WAITING


def _known(row: KnownJob) -> uuid.UUID:
    assert row.delivery is not None
    return row.delivery


def _waits(job: OldJob) -> str:
    if job.message.is_held:
        return "held by a worker that is gone"
    if job.retries:
        return "retrying"
    return "scheduled" if job.headers.get("eta") else "queued"
