"""One settlement: how jobs start and end where a pool of processes runs them, many at a time.

A worker's parent (prefork) starts the rows of all messages that go to its pool together, and writes how they ended
together; a message is acknowledged when its end is written. The pool's process hands the end over with its result,
and writes nothing itself, unless something follows from the end.

Nothing here waits for the disk: what is written before an acknowledgement is in the log before it, and the
acknowledgement does wait. (Where the broker is not in the tables' database, the end waits for the disk instead.)

What if …                                             then
… the worker dies before the end is written           its message was not acknowledged: it comes again, and the job
                                                      runs again
… it dies between the end and the acknowledgement     the message comes again, and its start is refused
… the process dies with the end, before its parent    as when it dies while the job runs: the message comes again
  has it
… the end is written, and the answer lost             it is written again, and refused: it was ours
… Postgres crashes within a moment of the start, and  the end finds a row that waits, with an attempt less: the start
  has forgotten it                                    is written first
… the broker's session is lost                        what waits to start is let go, for its messages go back; ends
                                                      wait, and are written when the worker has a session again
… the start is refused, or there is no row            the job goes to its process all the same, whose own claim tells
                                                      why, and does what there is to do (`claim`)

| | lost, transient | refused, wrong |
|---|---|---|
| starting | waits, in its order; nothing goes to the pool | as one by one (`claim`) |
| ending | waits, unacknowledged | one by one, logged |

A row that somebody else has locked holds up nothing but its own job: the others are written without it.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import psycopg
from celery.worker import state as worker_state

from jobbridge.app.execute.claim import identify, started_by
from jobbridge.app.execute.request import JobRequest
from jobbridge.app.execute.together import LONGEST_NAP, PATIENCE
from jobbridge.broker.waker import Waker
from jobbridge.core.events import Requeued, Started
from jobbridge.core.status import WAITING
from jobbridge.errors import DatabaseError, DatabaseUnavailable
from jobbridge.postgres.faults import is_held_up
from jobbridge.store.database import Database
from jobbridge.store.jobs.batches import SETTINGS, Batches, Begun, Ended, event_of

if TYPE_CHECKING:
    from uuid import UUID

    from jobbridge.app.application import Celery

logger = logging.getLogger(__name__)

#: An end waits for others to be written with it, while the pool has work: so long, in seconds, and longer where jobs
#: are so short that they are started ahead.
DELAY, LONGER_DELAY = 0.003, 0.01
#: So many messages are taken beyond the prefetch count at most.
MANY = 50
#: Jobs that will begin within this time by all appearances are started ahead of it. Seconds.
AHEAD = 0.05
#: After so long without an end, what is more than the prefetch count goes back to the queue. Seconds.
WAITS = 1.0
#: Between two tries for an end whose row somebody has locked. Seconds.
HELD_UP = 2.0
#: Seconds between two tries while Postgres cannot, at first and at most.
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0


class JobSettler:
    """Starts and settles the jobs of one worker's pool. For the thread of its event loop.

    Args:
        app: Whose jobs.
        worker: Celery's, with its pool and its loop.
    """

    def __init__(self, app: Celery, worker: Any) -> None:
        self._app = app
        self._worker = worker
        self._waiting: deque[Any] = deque()  # requests; those of tasks registered late are Celery's own
        self._ends: list[tuple[JobRequest, Ended, Callable[[], object]]] = []
        self._held_up: list[tuple[JobRequest, Ended, Callable[[], object]]] = []
        self._first_end_at = 0.0
        self._runtime: float | None = None  # of jobs, on average, in seconds
        self._ended_at = float("-inf")
        self._is_turning = self._is_called = False
        self._timer: Any = None
        self._return_timer: Any = None
        self._waker: Waker | None = None
        self._not_before = 0.0
        self._pause = FIRST_PAUSE
        own = {} if not app.shares_database_with_broker else {"synchronous_commit": "off"}
        settings = {**SETTINGS, **own}
        self._database = Database(
            app.database.target.url, kept=1, most=1, purpose="settlements", session_settings=settings
        )
        self._batches: tuple[object, Batches] | None = None

    # -- what Celery's consumer and pool call

    def take(self, request: JobRequest) -> None:
        """Start it as soon as the pool has room, in its order."""
        if self._is_turning:  # else its message goes back with the session that brought it
            self._waiting.append(request)
            self._call_soon()
            self._give_back_soon()

    def finish(self, request: JobRequest, ended: Ended, then: Callable[[], object]) -> None:
        """Write how it ended; then go on as Celery does, which acknowledges it."""
        if not self._ends:
            self._first_end_at = time.monotonic()
        self._ends.append((request, ended, then))
        if self._is_turning:
            self._call_soon()
        else:
            self._write_ends_patiently()  # the worker shuts down, and its loop does not turn any more

    def note_runtime(self, seconds: float) -> None:
        """Know how long jobs take here, and that one has ended."""
        self._ended_at = time.monotonic()
        before = self._runtime
        self._runtime = seconds if before is None else before + (seconds - before) * 0.2

    def beyond_prefetch(self) -> int:
        """Give how many more messages to take than the prefetch count says: as many as will begin in a moment.

        The prefetch count keeps long jobs from waiting in one worker while another is idle; short ones do not wait.
        """
        if not self._is_turning or time.monotonic() - self._ended_at > AHEAD:
            return 0
        return min(self._ahead(self._worker.pool.num_processes), MANY)

    def ended(self) -> list[JobRequest]:
        """Give the requests whose jobs have ended, and whose ends are to be written. For any thread."""
        return [request for request, _, _ in [*self._ends, *self._held_up]]

    def look(self) -> None:
        """See whether there is something to do: the pool has room again."""
        if self._waiting and self._is_turning:
            self._call_soon()

    # -- life

    def begin(self) -> None:
        """The loop turns, or will in a moment."""
        self._is_turning, self._not_before, self._pause = True, 0.0, FIRST_PAUSE
        self._is_called = False  # the loop may have been reset, and have forgotten it
        self._waker = Waker(self._worker.hub)
        if self._ends:
            self._call_soon()

    def interrupt(self) -> None:
        """The loop has stopped: the session with the broker is lost, or the worker shuts down."""
        self._is_turning = False
        self._ends += self._held_up
        self._held_up.clear()
        for timer in (self._timer, self._return_timer):
            if timer is not None:
                timer.cancel()
        self._timer = self._return_timer = None
        if self._waker is not None:
            self._waker.close()
            self._waker = None
        self._waiting.clear()
        if _shuts_down():  # else what a process was handed stays with it (`app.worker.pool`)
            self._release_unaccepted()
            if self._ends:
                self._write_ends_patiently()

    def close(self) -> None:
        """The worker ends."""
        if self._ends:
            self._write_ends_patiently()
        self._database.close()

    def _release_unaccepted(self) -> None:
        """Let go of jobs that were started ahead of a process that would take them: their messages go back."""
        forgotten: Any = getattr(self._worker.pool._pool, "take_forgotten", tuple)  # as Celery has, by now
        for key, attempt in forgotten():
            with suppress(DatabaseError):  # else its next start closes the attempt
                self._app.recorder.record(Requeued(key=key, attempt=attempt, reason="It had not begun."))

    # -- turns

    def _call_soon(self) -> None:
        if not self._is_called:
            self._is_called = True
            self._worker.hub.call_soon(self.turn)
            self._wake()

    def _wake(self) -> None:
        # The loop has fixed how long it sleeps when it calls us.
        if self._waker is not None:
            self._waker.wake()

    def _call_later(self, seconds: float) -> None:
        if self._timer is None and self._is_turning:
            self._timer = self._worker.hub.call_later(seconds, self._on_timer)
            self._wake()

    def _on_timer(self) -> None:
        self._timer = None
        self.turn()

    def turn(self) -> None:
        """Write what is to be written now, and hand to the pool what there is room for."""
        self._is_called = False
        if not self._is_turning or not (self._ends or self._waiting):
            return
        now = time.monotonic()
        if now < self._not_before:
            self._call_later(self._not_before - now)
            return
        self._not_before = 0.0
        busy, processes = len(self._worker.pool._pool._cache), self._worker.pool.num_processes
        is_starving = bool(self._waiting) and busy < processes
        if not (is_starving or busy == 0 or len(self._ends) >= max(busy, processes)):
            # The pool has work: what has ended is written with what ends next, and with what is started then.
            if not self._ends:
                return
            age, delay = now - self._first_end_at, DELAY if busy <= processes else LONGER_DELAY
            if age < delay:
                self._call_later(delay - age)
                return
        self._settle(processes + self._ahead(processes) - busy)
        if (hand_out := getattr(self._worker.pool._pool, "hand_out", None)) is not None:
            hand_out(self._worker.hub)
        self._wake()  # acknowledgements are called soon

    def _give_back_soon(self) -> None:
        """Have what was taken beyond the prefetch count go back, should the jobs before it turn out to be long."""
        if self._return_timer is None and len(self._waiting) > self._worker.consumer.qos.value:
            self._return_timer = self._worker.hub.call_later(WAITS, self._give_back)

    def _give_back(self) -> None:
        self._return_timer = None
        if not self._is_turning:
            return
        if time.monotonic() - self._ended_at >= WAITS:
            while len(self._waiting) > self._worker.consumer.qos.value:
                request = self._waiting.pop()
                if isinstance(request, JobRequest):
                    request._jobbridge_give_back()
                else:
                    self._worker._process_task(request)
            self._wake()
        self._give_back_soon()

    def _ahead(self, processes: int) -> int:
        if self._runtime is None:
            return 0
        return processes * int(AHEAD / max(self._runtime, 0.0005))

    def _settle(self, room: int) -> None:
        batch, rest = self._next(room)
        ends, later = _distinct(self._ends)
        starts = [
            request._jobbridge_started
            for request in batch
            if isinstance(request, JobRequest) and request._jobbridge_started is not None
        ]
        try:
            done, begun = self._write([ended for _, ended, _ in ends], starts)
        except DatabaseUnavailable as error:
            if not is_held_up(error.__cause__):
                self._waiting.extendleft(reversed([*batch, *rest]))
                self._wait(error)
                return
            done, begun = set(), {}
        except (psycopg.Error, DatabaseError) as error:
            logger.warning("jobs.one_by_one", extra={"error": str(error)})
            done, begun = set(), {}
        self._waiting.extendleft(reversed(rest))
        self._pause = FIRST_PAUSE
        self._ends = later
        for request in batch:
            if isinstance(request, JobRequest) and request._jobbridge_started is not None:
                request._jobbridge_begun = begun.get(request._jobbridge_started.key.job_id)
            self._worker._process_task(request)
        for each in ends:
            self._end(*each, is_written=each[1].job_id in done)
        if (self._ends or self._waiting) and self._is_turning:
            self._call_soon()

    def _end(
        self, request: JobRequest, ended: Ended, then: Callable[[], object], *, is_written: bool
    ) -> None:
        try:
            if not is_written:
                self._write_alone(request, ended)
        except DatabaseUnavailable as error:
            if is_held_up(error.__cause__) and self._is_turning:
                self._held_up.append((request, ended, then))
                self._worker.hub.call_later(HELD_UP, self._try_held_up)
                return
            self._ends.append((request, ended, then))
            self._wait(error)
        else:
            self._app.batches.note_end_of(request._context)
            then()

    def _try_held_up(self) -> None:
        if self._held_up and self._is_turning:
            self._end(*self._held_up.pop(0), is_written=False)
            self._wake()

    def _next(self, room: int) -> tuple[list[JobRequest], list[JobRequest]]:
        """Take from the queue what there is room for; what is the same job as one before it waits for the next turn."""
        batch: list[JobRequest] = []
        rest: list[JobRequest] = []
        seen: set[UUID] = set()
        while self._waiting and len(batch) < room:
            request = self._waiting.popleft()
            if request.revoked():
                continue  # it is acknowledged, and its row told
            # A task that was registered after the worker began is not ours to start: its process does.
            run = identify(request._context) if isinstance(request, JobRequest) else None
            if run is not None and run.key.job_id in seen:
                rest.append(request)
                continue
            if run is not None:
                seen.add(run.key.job_id)
                request._jobbridge_started = started_by(request.task, request._context, run)
            batch.append(request)
        return batch, rest

    def _wait(self, error: DatabaseUnavailable) -> None:
        pause, self._pause = self._pause, min(self._pause * 2, LONGEST_PAUSE)
        logger.warning("jobs.not_settled: %s Again in %.1f s.", error, pause)
        self._not_before = time.monotonic() + pause
        self._call_later(pause)

    # -- writing

    def _write(self, ends: list[Ended], starts: list[Started]) -> tuple[set[UUID], dict[UUID, Begun]]:
        if not ends and not starts:
            return set(), {}
        with self._database.connection(check_schema=bool(starts)) as connection:
            if self._batches is None or self._batches[0] is not connection:
                self._batches = connection, Batches(connection)
            return self._batches[1].write(ends, starts)

    def _write_alone(self, request: JobRequest, ended: Ended) -> None:
        """Write an end that was not written with the others."""
        event = event_of(ended)
        try:
            done, _ = self._write([ended], [])
            if done:
                return
            # It is refused, or its start was forgotten by a crash.
            recorder = self._app.recorder
            recorded = recorder.record(event, check_schema=False)
            is_forgotten = recorded.status in WAITING and recorded.attempt < ended.attempt
            if not recorded.applied and is_forgotten and request._jobbridge_started is not None:
                recorder.record(request._jobbridge_started, check_schema=False)
                recorder.record(event, check_schema=False)
        except DatabaseUnavailable:
            raise
        except (psycopg.Error, DatabaseError) as error:
            details = {"event": type(event).__name__, "job_id": str(ended.job_id), "error": str(error)}
            logger.error("job.event_not_recorded", extra=details)

    def _write_ends_patiently(self) -> None:
        deadline, nap = time.monotonic() + PATIENCE, 0.05
        while self._ends:
            before = len(self._ends)
            self._settle(0)
            if len(self._ends) < before:
                continue
            if time.monotonic() > deadline:
                return  # not acknowledged: they run again
            time.sleep(nap)
            nap = min(nap * 2, LONGEST_NAP)


def _shuts_down() -> bool:
    told: Any = worker_state
    return told.should_stop is not None or told.should_terminate is not None


def _distinct(ends: list[Any]) -> tuple[list[Any], list[Any]]:
    """Part ends of different jobs from those of a job that is among them already."""
    first: list[Any] = []
    later: list[Any] = []
    seen: set[UUID] = set()
    for each in ends:
        (later if each[1].job_id in seen else first).append(each)
        seen.add(each[1].job_id)
    return first, later
