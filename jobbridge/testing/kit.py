"""What a test has in its hands, whichever engine runs the jobs."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, LiteralString

from psycopg.rows import dict_row

from jobbridge.core.status import JobStatus
from jobbridge.testing.failures import Failures
from jobbridge.testing.records import Expected, Job, found_among, jobs_of, listing
from jobbridge.testing.virtual_time import Timed, VirtualClock

if TYPE_CHECKING:
    from jobbridge.app.application import Celery

# What is due, and has not run; not what waits for an event, nor for a child that is not due.
_DUE: LiteralString = """
SELECT type, status, queue, task_id
FROM public.jobs AS job
WHERE completed_at IS NULL AND (run_at <= clock_timestamp() OR run_at IS NULL AND status <> 'waiting')
    AND NOT EXISTS (
        SELECT FROM public.jobs AS child
        WHERE child.parent_id = job.job_id AND child.completed_at IS NULL AND child.run_at > clock_timestamp()
    )
"""
#: Messages without a row (`track=False`) are work, too; control messages are not.
_MESSAGES: LiteralString = """
SELECT headers ->> 'task' AS type, 'sent' AS status, queue, headers ->> 'id' AS task_id
FROM jobbridge_broker.messages
WHERE headers ->> 'task' IS NOT NULL AND (due_at IS NULL OR due_at <= clock_timestamp())
"""
_PATIENCE = 30.0
_LONGEST_PAUSE = 0.1


class JobFailed(AssertionError):
    """A job failed, and `drain(raise_on_failure=True)` was asked to say so; its own exception is the cause."""


class Jobs(Timed):
    """The jobs of one test.

    Attributes:
        app: The application under test.
        engine: `inline`, `ce` or `ee`.
        clock: Moves on at the test's word.
    """

    engine: ClassVar[str]

    def __init__(self, app: Celery) -> None:
        self.app = app
        self.clock = VirtualClock(self)
        self._failures = Failures()
        self._told: set[str] = set()

    def start(self) -> None:
        """Begin: whoever runs the jobs is there when it returns."""
        self.clock.reset_schedules()

    # -- what was enqueued

    @property
    def enqueued(self) -> list[Job]:
        """All jobs of this test, those that ended too, the first one first."""
        return jobs_of(self.app.database)

    def job(self, result: Any) -> Job:
        """Give the job of a result, or of a task id.

        Raises:
            LookupError: There is none.
        """
        task_id = str(getattr(result, "id", result))
        jobs = self.enqueued
        for job in jobs:
            if task_id in (job.id, str(job.job_id)):
                return job
        raise LookupError(f"There is no job {task_id}. {listing(jobs)}")

    def assert_enqueued(
        self,
        task: Any = None,
        *,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        tenant: str | None = None,
        at: datetime | timedelta | None = None,
        queue: str | None = None,
        status: str | None = None,
        count: int | None = None,
    ) -> list[Job]:
        """Make sure that such a job was enqueued, whether it has run meanwhile or not; gives those that were.

        Args:
            task: The task, or its name.
            args: All of its positional arguments; of a handler its data, as the only one.
            kwargs: All of its keyword arguments.
            tenant: Whose job it is.
            at: When it is due, give or take two seconds; a timedelta is counted from when it was sent.
            queue: Its queue.
            status: As the row has it: `completed`, `failed`, `scheduled` and so on.
            count: So many, and no more; None: one at least.

        Raises:
            AssertionError: There is none, or another number; lists what was enqueued.
        """
        expected = self._expected(task, args, kwargs, tenant, at, queue, status)
        jobs = self.enqueued
        found = found_among(jobs, expected)
        if (not found) if count is None else len(found) != count:
            wanted = "No job" if count is None else f"{len(found)} and not {count} jobs"
            raise AssertionError(f"{wanted} of {expected} was enqueued.\n{listing(jobs, expected)}")
        return found

    def refute_enqueued(
        self,
        task: Any = None,
        *,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        tenant: str | None = None,
        at: datetime | timedelta | None = None,
        queue: str | None = None,
        status: str | None = None,
    ) -> None:
        """Make sure that no such job was enqueued. Arguments as those of `assert_enqueued`.

        Raises:
            AssertionError: There is one; lists those that there are.
        """
        expected = self._expected(task, args, kwargs, tenant, at, queue, status)
        found = found_among(self.enqueued, expected)
        if found:
            raise AssertionError(f"A job of {expected} was enqueued, and none was to be.\n{listing(found)}")

    def _expected(
        self, task: Any, args: Any, kwargs: Any, tenant: Any, at: Any, queue: Any, status: Any
    ) -> Expected:
        if isinstance(args, str | bytes | Mapping):
            raise TypeError(f"args is a list of arguments, not {args!r}: write args=[{args!r}].")
        name = None if task is None else str(getattr(task, "name", task))
        if (
            name is not None
            and name not in self.app.tasks
            and found_among(self.enqueued, Expected(task=name)) == []
        ):
            raise AssertionError(
                f"The app has no task {name!r}, so that no job of it is enqueued: is the name right?"
            )
        return Expected(
            task=name, args=args, kwargs=kwargs, tenant=None if tenant is None else str(tenant), at=at, queue=queue,
            status=None if status is None else str(status),
        )  # fmt: skip

    # -- running them

    def drain(
        self, *, raise_on_failure: bool = False, with_scheduled: bool = False, timeout: float = _PATIENCE
    ) -> Counter[str]:
        """Have all that is due run, and what comes of it, until nothing is left.

        Args:
            raise_on_failure: Raise if a job failed for good that no drain has told of.
            with_scheduled: Travel to what is not due yet (ETAs, retries), too, until there is nothing.
            timeout: Seconds.

        Returns:
            How many jobs of this test are in each status now.

        Raises:
            JobFailed: See `raise_on_failure`; its cause is the job's own exception.
            AssertionError: Time was up; lists what is left.
        """
        deadline = time.monotonic() + timeout
        self._drain(deadline)
        while with_scheduled and self.clock.travel_to_next():
            self._drain(deadline)
        jobs = self.enqueued
        if raise_on_failure:
            self._raise_first(jobs)
        return Counter(job.status for job in jobs)

    def _drain(self, deadline: float) -> None:
        """Wait until whoever runs the jobs has nothing to do that is due."""
        pause = 0.01
        while left := self._left():
            if time.monotonic() > deadline:
                named = "\n".join(f"  - {each['type']} {each['task_id']} is {each['status']} in the queue "
                                  f"{each['queue']!r}" for each in left)  # fmt: skip
                raise AssertionError(
                    f"Time was up before all had run. Left is what is due:\n{named}\n{self._why()}"
                )
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _left(self) -> list[dict[str, Any]]:
        def ask(own: Any) -> list[dict[str, Any]]:
            cursor = own.cursor(row_factory=dict_row)
            rows: list[dict[str, Any]] = cursor.execute(_DUE).fetchall()
            return rows or cursor.execute(_MESSAGES).fetchall()

        return self.app.database.run(ask)

    def _why(self) -> str:
        return "Is each queue one that the worker serves (task_queues), and does no task run for ever?"

    def _raise_first(self, jobs: Sequence[Job]) -> None:
        failed = [job for job in jobs if job.status == JobStatus.FAILED and job.id not in self._told]
        self._told.update(job.id for job in failed)
        for job in failed:
            try:
                self.app.AsyncResult(job.id).maybe_throw()
            except Exception as error:
                more = "" if len(failed) == 1 else f" (and {len(failed) - 1} more failed)"
                raise JobFailed(f"{job} failed{more}.") from error
            raise JobFailed(f"{job} failed.")

    def fail_next(self, task: Any, error: BaseException | type[BaseException], *, times: int = 1) -> None:
        """Have the next executions of a task raise `error` instead of running.

        Args:
            task: The task, or its name.
            error: An exception, or its class.
            times: So many executions; retries count.

        Raises:
            LookupError: The app has no such task.
        """
        name = str(getattr(task, "name", task))
        if name not in self.app.tasks:
            raise LookupError(f"The app has no task {name!r}.")
        self._failures.add(self.app.tasks[name], error, times)

    def close(self) -> None:
        """Let the app's tasks be as they were."""
        self._failures.close()
