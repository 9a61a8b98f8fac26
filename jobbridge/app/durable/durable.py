"""Suspending jobs, and sending them events.

What is between two writes, and who goes on when the process dies there, is told in docs/decisions/0032-durable-jobs.md.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, NoReturn
from uuid import UUID

from celery.exceptions import Ignore

from jobbridge.app.durable import links, undoing
from jobbridge.app.durable.awaited import AwaitedCalls
from jobbridge.app.durable.calls import Calls
from jobbridge.app.durable.eager import EagerCalls
from jobbridge.app.durable.recorded import Recorded
from jobbridge.app.execute.claim import Run, run_of
from jobbridge.app.execute.together import Together, in_one_transaction, patiently
from jobbridge.broker import publishing_held
from jobbridge.codec.rows import place_of
from jobbridge.core.durable import UNDO_HEADER, Kind, NewStep, Snooze, Suspended, Suspension
from jobbridge.core.keys import Engine, JobKey
from jobbridge.core.status import JobStatus
from jobbridge.errors import (
    DatabaseError,
    DatabaseUnavailable,
    EncryptionError,
    JobNotFound,
    UnsupportedOption,
)
from jobbridge.store.jobs import steps
from jobbridge.store.waits import records, waits

if TYPE_CHECKING:
    from jobbridge.app.application import Celery
    from jobbridge.postgres.caller_connection import DriverConnection

Json = Any  # what json.loads returns

logger = logging.getLogger(__name__)

_ATTRIBUTE = "jobbridge_durable"


class Durable:
    """The durable jobs of an app.

    Args:
        app: Whose jobs.
    """

    def __init__(self, app: Celery) -> None:
        self._app = app

    def calls(self, task: Any) -> Calls | None:
        """Give the durable calls of the job that runs; None: it has no row, as eager ones."""
        request = task.request
        run = run_of(request)
        if run is None:
            return None
        known: Calls | None = getattr(request, _ATTRIBUTE, None)
        if known is None:
            known = Calls(self._app, Recorded(self._app, run, task.name))
            setattr(request, _ATTRIBUTE, known)
        return known

    def steps(self, task: Any) -> Calls | EagerCalls:
        """Give who makes the durable calls of the job that runs.

        Raises:
            UnsupportedOption: It has no row, and is not eager.
        """
        calls = self.calls(task)
        if calls is not None:
            return calls
        if not task.request.is_eager:
            raise UnsupportedOption(
                f"{task.name} runs without a row, so nothing can be recorded of it.",
                hint="Send it with track=True.",
            )
        known: EagerCalls | None = getattr(task.request, _ATTRIBUTE, None)
        if known is None:
            known = EagerCalls(self._app)
            setattr(task.request, _ATTRIBUTE, known)
        return known

    @staticmethod
    def awaited(calls: Calls | EagerCalls) -> AwaitedCalls:
        """Give the same for a coroutine."""
        return AwaitedCalls(calls)

    def register_undo(self, calls: Calls, undo: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
        """Record what is to be done should the job fail."""
        undoing.register(self._app, calls, undo, args, kwargs)

    def pending(self, request: Any) -> Suspended | None:
        """Give the suspension of a job whose code has kept it to itself."""
        known = getattr(request, _ATTRIBUTE, None)
        return known.recorded.suspended if isinstance(known, Calls) else None

    def tell_untaken(self, request: Any) -> None:
        """Say that a handler came to its end without calls that it had made: they were taken out of the code."""
        known = getattr(request, _ATTRIBUTE, None)
        if not isinstance(known, Calls) or not known.recorded.untaken:
            return
        run, untaken = known.recorded.run, known.recorded.untaken
        logger.warning("job.recorded_calls_untaken", extra={"job_id": run.task_id, "calls": untaken})
        with suppress(DatabaseError), self._app.database.connection() as connection:
            steps.note(connection, run.key, "untaken", {"calls": untaken[:100]}, attempt=run.attempt or 0)

    def check_waits(self) -> None:
        """Refuse to wait where nobody could wake the job in the transaction of what it waits for.

        Raises:
            UnsupportedOption: The broker is not in the database of the tables.
        """
        if not self._app.shares_database_with_broker:
            raise UnsupportedOption(
                "The broker is not in the database of the job tables: a job cannot wait for events or other jobs.",
                hint="Use a jobbridge+postgresql:// broker on the same database.",
            )

    # -- suspending

    def suspend(self, task: Any, suspended: Suspended) -> Ignore:
        """End the attempt that runs, and send its job again: all in one transaction.

        Returns:
            What to raise for Celery.

        Raises:
            DatabaseUnavailable: Its start could not be recorded, or Postgres is away for longer than an end waits.
        """
        run = run_of(task.request)
        if run is None:
            return Ignore(str(suspended))
        if run.attempt is None:
            raise DatabaseUnavailable(
                "The start of the job could not be recorded, so it cannot be suspended."
            )
        self._check_broker(suspended)
        until = suspended.until
        if isinstance(suspended, Snooze):
            until = Recorded(self._app, run, task.name).now() + suspended.delay

        if not self._app.shares_database_with_broker and run.engine is Engine.CELERY:
            self._write_apart(task, run, suspended, until)
            return Ignore(str(suspended))

        def write(_: bool) -> bool:
            with in_one_transaction(self._app) as opened:
                return self._write(opened, task, run, suspended, until)

        run.continued = patiently(write, event="Suspended", job_id=run.task_id)
        return Ignore(str(suspended))

    def _check_broker(self, suspended: Suspended) -> None:
        if suspended.wait is not None:
            self.check_waits()

    def _write(
        self,
        opened: Together,
        task: Any,
        run: Run,
        suspended: Suspended,
        until: datetime | None,
    ) -> bool:
        """Write all of it; False: the job was cancelled, and the attempt has still to say that it ended."""
        connection, wait = opened.connection, suspended.wait
        if wait is not None:
            waits.lock(connection, run.key, wait.kind, wait.name, wait.key)
        self._app.jobs.lock(run.key, connection)
        row = self._app.jobs.get(run.key, connection)
        if row is None or row.status is not JobStatus.PROCESSING or row.attempt != run.attempt:
            # Else this was written before, and only the answer was lost.
            return row is not None and row.status is not JobStatus.CANCELLED
        assert run.attempt is not None  # see `suspend`
        recorded = Recorded(self._app, run, task.name)
        made = {step.detail_id: step for step in suspended.steps}
        is_waiting = wait is not None
        if wait is not None and wait.kind is Kind.EVENT:
            event = waits.take_event(connection, run.key, wait.name, wait.key)
            if event is not None:
                made[wait.step] = _completed(made[wait.step], event)
                is_waiting, until = False, None
        for step in made.values():
            recorded.put_on(connection, step)
        if isinstance(suspended, Snooze) and until is not None:
            told = {"until": until.isoformat(), "reason": suspended.reason}
            steps.note(connection, run.key, "snooze", told, attempt=run.attempt)
        self._send_called(connection, run, suspended)
        if wait is not None and is_waiting:
            pending = waits.count_open(connection, run.key, wait.children) if wait.children else 0
            is_waiting = wait.kind is not Kind.CALL or pending > 0
        if wait is not None and is_waiting:
            waits.begin(connection, run.key, wait, until=until, pending=pending)
        else:
            waits.end(connection, run.key)
        self._send_again(task, run, suspended, Suspension(until=until, waits=is_waiting))
        return True

    def _write_apart(self, task: Any, run: Run, suspended: Suspended, until: datetime | None) -> None:
        """Record a sleep, then send the job again by a broker that has no part in the transaction.

        Death between the two: the message was not acknowledged, and the job that runs again finds its sleep.
        """
        recorded = Recorded(self._app, run, task.name)

        def write(_: bool) -> None:
            with self._app.database.transaction() as connection:
                for step in suspended.steps:
                    recorded.put_on(connection, step)

        patiently(write, event="Suspended", job_id=run.task_id)
        self._send_again(task, run, suspended, Suspension(until=until, waits=False), eta=until)

    def _send_called(self, connection: DriverConnection, run: Run, suspended: Suspended) -> None:
        for each in suspended.called:
            signature = each.signature.clone()
            signature.set(task_id=str(each.job_id), tenant=run.key.tenant)
            signature.options.setdefault("default_engine", run.engine.value)
            signature.apply_async()
        if suspended.called:
            waits.note_called(connection, run.key, [each.job_id for each in suspended.called])

    def _send_again(
        self, task: Any, run: Run, suspended: Suspended, suspension: Suspension, **more: Any
    ) -> None:
        request = task.request
        headers = {name: value for name, value in (request.headers or {}).items() if name != UNDO_HEADER}
        if suspended.undoes or (request.headers or {}).get(UNDO_HEADER):
            headers[UNDO_HEADER] = True
        signature = task.signature_from_request(request, headers=headers, expires=None)
        options = {name: value for name, value in {**signature.options, **more}.items() if value is not None}
        if suspension.waits:
            options["temporal_light"] = False if run.engine is Engine.TEMPORAL else None
        with publishing_held(suspension.until, is_woken=suspension.waits):
            self._app.send_task(
                signature.task,
                args=signature.args,
                kwargs=signature.kwargs,
                tenant=run.key.tenant,
                engine=run.engine,
                suspension=suspension,
                add_to_parent=False,
                **options,
            )

    # -- sagas

    def undoing(self, task: Any, error: BaseException) -> Suspended | None:
        """Give the suspension by which a job that fails for good is undone; None: there is nothing to undo."""
        known = getattr(task.request, _ATTRIBUTE, None)
        if isinstance(known, EagerCalls):
            known.undo()
        if not isinstance(known, Calls) or (task.request.headers or {}).get(UNDO_HEADER):
            return None
        return undoing.failure(known, error) if undoing.has_undo_steps(known) else None

    def undo(self, task: Any) -> NoReturn:
        """Undo what the job that runs has done, and fail it by what it failed with."""
        calls = self.calls(task)
        assert calls is not None  # its message says that it was suspended
        raise undoing.undo_all(self._app, calls)

    # -- events

    def send_event(
        self,
        name: str,
        payload: Json = None,
        *,
        job_id: UUID | str | None = None,
        key: str | None = None,
        tenant: str | None = None,
        once: str | None = None,
        sent_by: str | None = None,
    ) -> str:
        """Send an event; see `Celery.send_event`."""
        known = None if job_id is None else UUID(str(job_id))
        sealed, codec = payload, self._app.database.codec
        if codec and payload is not None:
            sealed = codec.seal_json(payload, _place(known, name))
        with self._app.database.transaction(self._app.caller_connection) as connection:
            return waits.send_event(
                connection, name, sealed, job_id=known, key=key, tenant=tenant, once=once, sent_by=sent_by
            )

    def event_link(self, job: JobKey, name: str, **options: Any) -> str:
        """Make a link by which somebody answers what a job waits for; see `Celery.event_link`."""
        return links.address_of(self._app.settings, job, name, **options)

    def open_payload(self, stored: Json, job: JobKey, name: str) -> Json:
        """Give an event's payload, which was sealed for its job, or for whoever has the key."""
        codec = self._app.database.codec
        if not codec:
            return stored
        try:
            return codec.open_json(stored, _place(job.job_id, name))
        except EncryptionError:
            return codec.open_json(stored, _place(None, name))

    # -- running again, and cancelling

    def forget_failed(self, job: JobKey) -> None:
        """Have a job that is run again make anew what failed; all, if it was undone."""
        with self._app.database.transaction(self._app.caller_connection) as connection:
            records.forget_failed(connection, job)

    def cancel_called(self, caller: JobKey, *, cancelled_by: str | None = None) -> None:
        """Cancel the jobs that a cancelled one called, those that have not ended."""
        with self._app.database.connection() as connection:
            children = waits.open_children(connection, caller)
        for child in children:
            try:
                self._app.cancel_job(
                    child,
                    caller.tenant,
                    reason="The job that called it was cancelled.",
                    cancelled_by=cancelled_by,
                )
            except JobNotFound:
                continue

    def sweep(self, stopped: threading.Event | None = None) -> int:
        """Cancel what was called by jobs that ended otherwise than by `cancel_job`; gives for how many.

        Args:
            stopped: Set when it should come to an end.
        """
        with self._app.database.connection() as connection:
            callers = waits.left_open(connection)
        for number, (caller, who) in enumerate(callers):
            if stopped is not None and stopped.is_set():
                return number
            self.cancel_called(caller, cancelled_by=who)
        return len(callers)


def _place(job_id: UUID | None, name: str) -> str:
    return f"event/{name}" if job_id is None else place_of(job_id, "result")


def _completed(step: NewStep, event: waits.Event) -> NewStep:
    return replace(
        step, status=JobStatus.COMPLETED, result=event.payload, metadata={**step.metadata, **event.told}
    )
