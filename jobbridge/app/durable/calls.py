"""The durable calls of a handler: each gives what is recorded of it, or is made and recorded, or suspends the job."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from jobbridge.app.durable.recorded import Recorded
from jobbridge.app.durable.signatures import Called, outcome_of, signature_for
from jobbridge.app.execute.together import patiently
from jobbridge.app.publish.message.ids import new_job_id
from jobbridge.core.durable import TIMED_OUT, Kind, NewStep, Suspended, Wait, duration_of
from jobbridge.core.retry import RetryPolicy
from jobbridge.core.status import JobStatus
from jobbridge.errors import UnsupportedOption
from jobbridge.store.waits import records, waits
from jobbridge.store.waits.records import Record

if TYPE_CHECKING:
    from jobbridge.app.application import Celery

#: A wait that is over in so short a time is waited for in place: to send the job again takes as long.
IN_PLACE = timedelta(seconds=1)
_NO_RETRY = RetryPolicy(max_attempts=1)


class Calls:
    """What the handler of one started job calls.

    Args:
        app: Whose job.
        recorded: What it recorded.
    """

    def __init__(self, app: Celery, recorded: Recorded) -> None:
        self._app = app
        self.recorded = recorded

    # -- steps

    def run(
        self,
        name: str,
        fn: Callable[..., Any],
        args: Sequence[Any],
        kwargs: dict[str, Any],
        *,
        retry: RetryPolicy | None,
        key: str | None,
    ) -> Any:
        """Give the recorded value of a step, or make it and record its value."""
        step = self.begin_run(name, retry, key)
        if step.is_done:
            return step.value
        while True:
            try:
                value = fn(*args, **kwargs)
            except Exception as error:
                time.sleep(self.fail_run(step, error).total_seconds())
            else:
                return self.end_run(step, value)

    def begin_run(self, name: str, retry: RetryPolicy | None, key: str | None) -> RunStep:
        """Give the step of a call; `is_done` where its value is recorded.

        Raises:
            Exception: What is recorded that the step failed with.
            Suspended: It is tried again later.
        """
        call = self.recorded.named(Kind.RUN, name, key)
        known = self.recorded.take(call)
        step = RunStep(call=call, name=name, key=key, policy=retry or _NO_RETRY)
        if known is not None and known.status is JobStatus.COMPLETED:
            step.is_done, step.value = True, self.recorded.decoded(known.result)
            return step
        if known is not None and known.status is JobStatus.FAILED:
            raise self.recorded.decoded_error(known.result)
        if known is not None and known.status is not JobStatus.CANCELLED:
            step.detail_id, step.tries = known.detail_id, int(known.metadata.get("tries", 0))
            if known.status is JobStatus.SCHEDULED:
                self._sleep_on(known, step.opened(JobStatus.SCHEDULED, dict(known.metadata)))
        self.recorded.put(step.opened(JobStatus.PROCESSING, {"tries": step.tries + 1}))
        return step

    def end_run(self, step: RunStep, value: Any) -> Any:
        """Record what a step gave; gives that as it will be given again."""
        result = self.recorded.encoded(value, f"the step {step.name!r}")
        self.recorded.put(step.opened(JobStatus.COMPLETED, {"tries": step.tries + 1}, result))
        return self.recorded.decoded(result)

    def fail_run(self, step: RunStep, error: Exception) -> timedelta:
        """Record that a try failed; gives how long to wait before the next.

        Raises:
            Exception: What it failed with: there is no further try.
            Suspended: The next is after a while.
        """
        step.tries += 1
        told: dict[str, Any] = {"tries": step.tries, "retries": self.recorded.run.retries}
        if not step.policy.allows_another(error, step.tries):
            result = self.recorded.encoded_error(error)
            self.recorded.put(step.opened(JobStatus.FAILED, told, result), error=error)
            raise error
        wait = step.policy.wait_after(step.tries, error)
        if wait <= IN_PLACE:
            return wait
        until = self.recorded.now() + wait
        told |= {"until": until.isoformat(), "error": self.recorded.error_line(error)}
        raise self._suspended(until, step.opened(JobStatus.SCHEDULED, told))

    # -- time

    def sleep(self, span: float | timedelta, key: str | None = None) -> None:
        try:
            duration = duration_of(span, "ctx.sleep")
        except ValueError as error:
            raise UnsupportedOption(str(error)) from None
        self._sleep_until(lambda: self.recorded.now() + duration, key)

    def sleep_until(self, at: datetime, key: str | None = None) -> None:
        if not isinstance(at, datetime) or at.tzinfo is None:
            raise UnsupportedOption(
                f"ctx.sleep_until was given {at!r}.", hint="Give an aware datetime, such as one in UTC."
            )
        self._sleep_until(lambda: at, key)

    def _sleep_until(self, when: Callable[[], datetime], key: str | None) -> None:
        call = self.recorded.named(Kind.SLEEP, "sleep", key)
        known = self.recorded.take(call)
        if known is not None and known.status is JobStatus.COMPLETED:
            return
        if known is None or "until" not in known.metadata:
            until = when()
            step = self._step(
                Kind.SLEEP, call, "sleep", key, JobStatus.SCHEDULED, {"until": until.isoformat()}
            )
            raise self._suspended(until, step)
        step = self._step(
            Kind.SLEEP, call, "sleep", key, JobStatus.SCHEDULED, dict(known.metadata), known.detail_id
        )
        self._sleep_on(known, step)
        done = self._step(Kind.SLEEP, call, "sleep", key, JobStatus.COMPLETED, {}, known.detail_id)
        self.recorded.put(done)

    def _sleep_on(self, known: Record, step: NewStep) -> None:
        """Return when a sleep that began before is over."""
        until = datetime.fromisoformat(known.metadata["until"])
        left = until - self.recorded.now()
        if left > IN_PLACE:  # somebody woke it
            raise self._suspended(until, step)
        time.sleep(max(left.total_seconds(), 0.0))

    # -- events

    def wait_for(
        self, name: str, timeout: float | timedelta | None, key: str | None, default: Any = TIMED_OUT
    ) -> Any:
        try:
            span = None if timeout is None else duration_of(timeout, "The timeout of ctx.wait_for")
        except ValueError as error:
            raise UnsupportedOption(str(error)) from None
        self._app.durable.check_waits()
        call = self.recorded.named(
            Kind.EVENT, name, None
        )  # not by its key: it may wait for the same one again
        known = self.recorded.take(call)
        if known is not None and known.status is JobStatus.WAITING:
            known = self._waited(known, name, key)
        if known is not None and known.status is JobStatus.COMPLETED:
            return default if known.metadata.get("timed_out") else self._payload(known.result, name)
        until = None if span is None else self.recorded.now() + span
        told = {} if until is None else {"until": until.isoformat()}
        detail_id = uuid4()

        def look(_: bool) -> waits.Event | None:
            with self._app.database.transaction() as connection:
                waits.lock(connection, self.recorded.run.key, Kind.EVENT, name, key)
                event = waits.take_event(connection, self.recorded.run.key, name, key)
                if event is not None:
                    step = self._step(
                        Kind.EVENT, call, name, key, JobStatus.COMPLETED, event.told, detail_id, event.payload
                    )
                    self.recorded.put_on(connection, step)
                return event

        if (event := patiently(look, event="WaitFor", job_id=self.recorded.run.task_id)) is not None:
            return self._payload(event.payload, name)
        step = self._step(Kind.EVENT, call, name, key, JobStatus.WAITING, told, detail_id)
        wait = Wait(kind=Kind.EVENT, name=name, key=key, step=detail_id)
        raise self._suspended(until, step, wait=wait)

    def _waited(self, known: Record, name: str, key: str | None) -> Record | None:
        """Give what became of a wait; it takes too long, or the job goes on waiting."""
        told = known.metadata.get("until")
        until = None if told is None else datetime.fromisoformat(told)
        if until is None or until - self.recorded.now() > IN_PLACE:
            step = self._step(
                Kind.EVENT, known.call, name, key, JobStatus.WAITING, dict(known.metadata), known.detail_id
            )
            wait = Wait(kind=Kind.EVENT, name=name, key=key, step=known.detail_id)
            raise self._suspended(until, step, wait=wait)
        time.sleep(max((until - self.recorded.now()).total_seconds(), 0.0))

        def give_up(_: bool) -> None:
            with self._app.database.transaction() as connection:
                waits.lock(connection, self.recorded.run.key, Kind.EVENT, name, key)
                if records.time_out(connection, self.recorded.run.key, known.detail_id):
                    waits.end(connection, self.recorded.run.key)

        patiently(give_up, event="WaitFor", job_id=self.recorded.run.task_id)
        self.recorded.forget_reading()  # the event may have come first
        return self.recorded.take(known.call)

    def _payload(self, stored: Any, name: str) -> Any:
        return self._app.durable.open_payload(stored, self.recorded.run.key, name)

    # -- other jobs

    def call(self, task: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        [outcome] = self._call([signature_for(self._app, task, args, kwargs)])
        return outcome.value()

    def gather(self, signatures: Sequence[Any]) -> list[Any]:
        outcomes = self._call([signature_for(self._app, each, (), {}) for each in signatures])
        return [outcome.value() for outcome in outcomes]  # the first that failed raises

    def _call(self, signatures: Sequence[Any]) -> list[Called]:
        if not signatures:
            return []
        self._app.durable.check_waits()
        calls = [self._called(signature) for signature in signatures]
        if all(each.is_known for each in calls):
            return calls
        left = [each for each in calls if not each.is_known]
        if not self._have_ended(left):
            wait = Wait(
                kind=Kind.CALL,
                name=left[0].signature.task,
                step=left[0].detail_id,
                children=tuple(each.job_id for each in left),
            )
            steps = [self._call_step(each, JobStatus.WAITING) for each in left]
            suspended = self._suspended(None, *steps, wait=wait)
            suspended.called = [each for each in left if not each.is_sent]
            raise suspended
        return calls

    def _called(self, signature: Any) -> Called:
        name = signature.task
        call = self.recorded.named(Kind.CALL, name, None)
        known = self.recorded.take(call)
        # Step and job are written together: a call of which there is no step has no job either.
        called = Called(call=call, signature=signature, job_id=new_job_id(), detail_id=uuid4())
        if known is None:
            return called
        called.detail_id, called.job_id, called.is_sent = known.detail_id, UUID(known.metadata["job"]), True
        if known.status is JobStatus.COMPLETED and not known.metadata.get("in_row"):
            called.is_known, called.result = True, self.recorded.decoded(known.result)
        if known.status is JobStatus.FAILED:
            called.is_known, called.error = True, self.recorded.decoded_error(known.result)
        return called

    def _have_ended(self, calls: Sequence[Called]) -> bool:
        """Take what became of called jobs, if all have ended."""
        outcomes = outcome_of(self._app, calls) if all(each.is_sent for each in calls) else None
        if outcomes is None:
            return False
        for each in calls:
            each.is_known = True
            each.result, each.error = outcomes[each.job_id]
            if each.error is not None:
                result = self.recorded.encoded_error(each.error)
                self.recorded.put(self._call_step(each, JobStatus.FAILED, result), error=each.error)
                continue
            try:
                result, told = self.recorded.encoded(each.result, f"the job {each.job_id}"), {}
            except UnsupportedOption:
                result, told = None, {"in_row": True}  # no JSON: it stays where it is
            self.recorded.put(self._call_step(each, JobStatus.COMPLETED, result, told))
        return True

    def _call_step(
        self, called: Called, status: JobStatus, result: Any = None, told: dict[str, Any] | None = None
    ) -> NewStep:
        known = {"job": str(called.job_id), "retries": self.recorded.run.retries, **(told or {})}
        name = called.signature.task
        return self._step(Kind.CALL, called.call, name, None, status, known, called.detail_id, result)

    # -- versions

    def version(self, name: str, number: int) -> int:
        call = self.recorded.named(Kind.VERSION, name, name)
        known = self.recorded.take_if_known(call)
        if known is not None:
            return int(known.result)
        if not self.recorded.is_new:
            return 0  # it passed here before there were versions
        self.recorded.put(
            self._step(Kind.VERSION, call, name, None, JobStatus.COMPLETED, {}, result=int(number))
        )
        return int(number)

    # -- sagas

    def on_failure(self, undo: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
        self._app.durable.register_undo(self, undo, args, kwargs)

    # -- parts

    def _suspended(self, until: datetime | None, *steps: NewStep, wait: Wait | None = None) -> Suspended:
        text = "The job waits." if wait is not None else f"The job sleeps until {until}."
        self.recorded.suspended = Suspended(text, until=until, wait=wait, steps=steps)
        return self.recorded.suspended

    @staticmethod
    def _step(
        kind: Kind,
        call: str,
        name: str,
        key: str | None,
        status: JobStatus,
        metadata: dict[str, Any],
        detail_id: UUID | None = None,
        result: Any = None,
    ) -> NewStep:
        return NewStep(
            detail_id=detail_id or uuid4(),
            kind=kind,
            call=call,
            name=name,
            key=key,
            status=status,
            metadata=metadata,
            result=result,
        )


@dataclass(kw_only=True, slots=True)
class RunStep:
    """One `ctx.run` while it is made.

    Attributes:
        tries: How often it was tried and failed.
    """

    call: str
    name: str
    key: str | None
    policy: RetryPolicy
    detail_id: UUID | None = None
    tries: int = 0
    is_done: bool = False
    value: Any = None

    def opened(self, status: JobStatus, metadata: dict[str, Any], result: Any = None) -> NewStep:
        self.detail_id = self.detail_id or uuid4()
        return NewStep(
            detail_id=self.detail_id,
            kind=Kind.RUN,
            call=self.call,
            name=self.name,
            key=self.key,
            status=status,
            metadata=metadata,
            result=result,
        )
