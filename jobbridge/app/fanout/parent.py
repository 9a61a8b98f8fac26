"""Fan-out: from one parent to many children, and back to the parent when the last of them has ended.

A parent holds no worker while its children run. Its first attempt makes the fan-out and ends; its row stays
`processing`, held by nobody. The last child's end sends the parent once more, and that short attempt collects what
became of the children: it returns, or fails, as any attempt does, on either engine. See docs/decisions/0007-fan-out.md.

What is between two steps, and who goes on when the process dies there, is told in `jobbridge.store.fanout.parent`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from celery.exceptions import Ignore

from jobbridge.app.execute.claim import Run, run_of
from jobbridge.app.execute.together import outside_of_tasks, patiently
from jobbridge.app.fanout import children
from jobbridge.core import fanout
from jobbridge.core.events import AwaitsChildren, Failed, Progressed
from jobbridge.core.fanout import ChildCounts, FanOut, Member
from jobbridge.core.keys import Engine, JobKey
from jobbridge.core.status import UNSUCCESSFUL, JobStatus
from jobbridge.errors import (
    CannotRetry,
    ChildrenFailed,
    DatabaseUnavailable,
    HandlerError,
    JobCancelled,
    JobNotFound,
    TenantRequired,
    UnsupportedOption,
)
from jobbridge.store.fanout import children as child_rows
from jobbridge.store.fanout import parent as parent_rows
from jobbridge.store.fanout.parent import FanOutRow, ReleasedMember
from jobbridge.store.jobs import steps

if TYPE_CHECKING:
    from jobbridge.app.application import Celery
    from jobbridge.postgres.caller_connection import DriverConnection

logger = logging.getLogger(__name__)

#: Children sent in one transaction.
RELEASES = 200

#: The sweep leaves to whoever acted a moment ago what follows from it; and it counts anew where nothing was heard.
NEGLECT = timedelta(seconds=2)
SILENCE = timedelta(minutes=1)


class FanOuts:
    """The parents and children of an app.

    Args:
        app: Whose jobs.
    """

    def __init__(self, app: Celery) -> None:
        self._app = app

    # -- the parent's own attempts

    def begin(self, task: Any, fan_out: FanOut) -> Any:
        """Make the children of the job that runs, and end its attempt until they have ended.

        Returns:
            What came of them, when there is nothing to wait for.

        Raises:
            Ignore: The attempt ends here; the job goes on when the last child has ended.
            ChildrenFailed: All had ended, and not all well.
            UnsupportedOption: The items, or where the children would go, do not fit.
            HandlerError: A child's data does not fit its handler.
        """
        run = run_of(task.request)
        if run is None:
            return children.run_eagerly(self._app, fan_out)
        if run.attempt is None:
            raise DatabaseUnavailable(
                "The start of the job could not be recorded, so it cannot have children now."
            )
        again = (
            fan_out
            if not isinstance(fan_out.items, Iterator)
            else replace(fan_out, items=list(fan_out.items))
        )

        def make(is_repeated: bool) -> ChildCounts | None:
            with self._transaction() as connection:
                if is_repeated and self._waits(connection, run):
                    return None
                children.make(
                    self._app,
                    connection,
                    run.key,
                    again,
                    root_id=task.request.root_id or run.task_id,
                    parent_id=run.task_id,
                    default_engine=run.engine,
                )
                return self._await(connection, task, run)

        return self._after(run, patiently(make, event="AwaitsChildren", job_id=run.task_id))

    def resume(self, task: Any) -> Any:
        """Look after the children that there are: wait for those which have not ended, or tell what came of them.

        Returns and raises as `begin`.
        """
        run = run_of(task.request)
        if run is None or run.attempt is None:
            raise DatabaseUnavailable(
                "The start of the job could not be recorded, so its children are not known."
            )

        def look(is_repeated: bool) -> ChildCounts | None:
            with self._transaction() as connection:
                if is_repeated and self._waits(connection, run):
                    return None
                return self._await(connection, task, run)

        return self._after(run, patiently(look, event="AwaitsChildren", job_id=run.task_id))

    def _waits(self, connection: DriverConnection, run: Run) -> bool:
        """Tell whether this attempt was given up for the children before, and only the answer was lost."""
        fan_out = parent_rows.lock(connection, run.key)
        return fan_out is not None and fan_out.attempt == run.attempt

    def _await(self, connection: DriverConnection, task: Any, run: Run) -> ChildCounts | None:
        """Give up the attempt for the children; gives what came of them instead if they have ended."""
        assert run.attempt is not None  # claimed: see those who call
        fan_out = parent_rows.lock(connection, run.key)
        if fan_out is None:
            raise JobNotFound(f"Job {run.task_id} has no children.", hint="Send it anew with fan_out.")
        if fan_out.unfinished == 0:
            parent_rows.close(connection, run.key)
            return child_rows.counts(connection, run.key)
        step_id = uuid4()
        steps.begin(connection, run.key, fanout.CHILDREN_STEP, detail_id=step_id, attempt=run.attempt)
        parent_rows.await_children(
            connection, run.key, attempt=run.attempt, resumption=children.resumption(task), step_id=step_id
        )
        if not self._app.recorder.record(
            AwaitsChildren(key=run.key, attempt=run.attempt), connection
        ).applied:
            raise JobCancelled(f"Job {run.task_id} was cancelled.")
        self._release(connection, parent_rows.lock(connection, run.key))
        return None

    def _after(self, run: Run, counts: ChildCounts | None) -> Any:
        if counts is None:
            run.continued = True
            while self.attend(run.key):
                pass
            raise Ignore("It waits for its children.")
        told = counts.to_json()
        self._app.jobs.describe(run.key, {fanout.OUTCOME_KEY: told})
        if counts.unsuccessful:
            raise ChildrenFailed(fanout.failure_of(counts, self._examples(run.key)))
        return told

    def _examples(self, parent: JobKey) -> list[Member]:
        statuses = [JobStatus.FAILED, JobStatus.CANCELLED, JobStatus.EXPIRED]
        with self._app.database.connection() as connection:
            return child_rows.unsuccessful(connection, parent, statuses, limit=children.EXAMPLES)

    # -- going on

    def attend(self, parent: JobKey) -> bool:
        """Do what is to be done in a fan-out now: release the next children, or send the parent that waited.

        Safe to call at any time, from any process. Trouble is logged: the sweep comes by again.

        Returns:
            Whether more children could be released at once.
        """
        try:
            with self._transaction() as connection:
                fan_out = parent_rows.lock(connection, parent)
                if fan_out is None or fan_out.is_closed or fan_out.attempt is None:
                    return False
                if fan_out.unfinished == 0:
                    self._close(connection, fan_out)
                    return False
                return self._release(connection, fan_out)
        except Exception as error:  # this is called where a job has just ended, which must not suffer from it
            logger.warning("fan_out.not_attended", extra={"job_id": str(parent.job_id), "error": repr(error)})
            return False

    def _release(self, connection: DriverConnection, fan_out: FanOutRow | None) -> bool:
        if fan_out is None or fan_out.attempt is None:
            return False
        limit = min(fan_out.room, RELEASES)
        members = parent_rows.release(connection, fan_out.key, limit=limit) if limit else []
        if limit and not members:
            # By its numbers some wait, and none does: members were deleted (with their tenant).
            parent_rows.count(connection, fan_out.key)
            return True
        refused = [member for member in members if not self._send(connection, fan_out, member)]
        if fan_out.is_report_due:
            self._tell_progress(connection, fan_out)
        if members or fan_out.is_report_due:
            parent_rows.note_released(connection, fan_out.key, len(members), told=fan_out.is_report_due)
        for member in refused:
            parent_rows.fail(connection, fan_out.key, member.key)
        return bool(refused) or (len(members) == RELEASES < fan_out.room)

    def _send(self, connection: DriverConnection, fan_out: FanOutRow, member: ReleasedMember) -> bool:
        args, kwargs = children.arguments_of(self._app, fan_out.key, member.item_key, member.arguments)
        try:
            with outside_of_tasks():
                self._app.send_task(
                    fan_out.task,
                    args=args,
                    kwargs=kwargs,
                    task_id=str(member.key.job_id),
                    tenant=member.key.tenant,
                    **fan_out.options,
                )
        except (HandlerError, TenantRequired, UnsupportedOption) as error:
            # Refused before anything was written: the handler changed since the items were checked.
            failed = Failed(
                key=member.key,
                attempt=None,
                error=f"{type(error).__name__}: {error}",
                type=fan_out.task,
                task_id=str(member.key.job_id),
            )
            self._app.recorder.record(failed, connection)
            return False
        return True

    def _tell_progress(self, connection: DriverConnection, fan_out: FanOutRow) -> None:
        assert fan_out.attempt is not None  # it waits
        ended = fan_out.total - fan_out.unfinished
        told = Progressed(
            key=fan_out.key,
            attempt=fan_out.attempt,
            progress=100.0 * ended / fan_out.total,
            message=f"{ended} of {fan_out.total} children have ended",
        )
        self._app.recorder.record(told, connection)

    def _close(self, connection: DriverConnection, fan_out: FanOutRow) -> None:
        """All have ended: send the parent, unless it has ended itself."""
        parent_rows.close(connection, fan_out.key)
        parent = self._app.jobs.get(fan_out.key, connection)
        counts = child_rows.counts(connection, fan_out.key)
        if fan_out.step_id is not None and counts is not None:
            is_over = parent is None or parent.status.is_final
            status = JobStatus.CANCELLED if is_over else JobStatus.COMPLETED
            steps.end(connection, fan_out.key, fan_out.step_id, status, result=counts.to_json())
        if parent is not None and not parent.status.is_final and fan_out.resumption is not None:
            self._send_parent(fan_out, parent.runner_type, continues=fan_out.attempt)

    def _send_parent(
        self,
        fan_out: FanOutRow,
        engine: Engine,
        *,
        continues: int | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        message = children.message_of(self._app, fan_out.key, fan_out.resumption or "")
        with outside_of_tasks():
            self._app.send_task(
                message["task"],
                args=message["args"],
                kwargs=message["kwargs"],
                **message["options"],
                tenant=fan_out.key.tenant,
                engine=engine,
                continues=continues,
                job_metadata=metadata,
            )

    # -- cancelling and retrying

    def cancel(self, parent: JobKey, *, cancelled_by: str | None = None) -> None:
        """Cancel the children of a parent that is cancelled, those that have not ended."""
        with self._app.database.transaction() as connection:
            if parent_rows.lock(connection, parent) is None:
                return
            released = parent_rows.cancel_waiting(connection, parent)
        missed = [child for child in released if not self._cancel_child(child, cancelled_by)]
        if missed:
            self._recount(parent)
        else:
            self.attend(parent)

    def _cancel_child(self, child: JobKey, cancelled_by: str | None) -> bool:
        """Cancel a child's job; False: it had ended, or is deleted, and maybe nobody counted that."""
        reason = "Its parent job was cancelled."
        try:
            return bool(
                self._app.cancel_job(child.job_id, child.tenant, reason=reason, cancelled_by=cancelled_by)
            )
        except JobNotFound:
            return False

    def retry_failed(self, parent: JobKey) -> int:
        """Run the children again that did not complete, and then end the parent anew.

        Returns:
            How many.

        Raises:
            JobNotFound: There is no such job.
            CannotRetry: It has no children, has not ended, or ended otherwise than failed.
        """
        with self._transaction() as connection:
            fan_out = parent_rows.lock(connection, parent)
            self._app.jobs.lock(parent, connection)
            row = self._app.jobs.get(parent, connection)
            if row is None:
                raise JobNotFound.with_id(str(parent.job_id))
            if fan_out is None or fan_out.resumption is None:
                raise CannotRetry(
                    f"{row.type} {row.job_id} has no children.",
                    hint="Run it again with `jobbridge jobs retry`.",
                )
            if row.status is not JobStatus.FAILED:
                raise CannotRetry(f"{row.type} {row.job_id} is {row.status.value}, not failed.")
            # Workers remember the ids of what they were told to stop: such a child is run again as a new job.
            generation, cancelled = parent_rows.cancelled_members(connection, parent)
            for member in cancelled:
                new_id = fanout.child_id(parent, f"{member.item_key}\n{generation}")
                parent_rows.rename(connection, member.key, new_id)
            number = parent_rows.reset(connection, parent, UNSUCCESSFUL)
            metadata = {name: value for name, value in row.metadata.items() if name != "data"}
            self._send_parent(fan_out, row.runner_type, metadata=metadata)
        return number

    # -- what nobody else saw to

    def sweep(self, stopped: threading.Event | None = None, *, counts: bool = True) -> int:
        """See to fan-outs in which something was left undone; gives their number.

        Any number of processes may do so at once.

        Args:
            stopped: Set when it should come to an end.
            counts: Also look for those in which nothing was heard, and count anew.
        """
        with self._app.database.connection() as connection:
            silent = child_rows.quiet(connection, older_than=SILENCE) if counts else ()
            neglected = child_rows.neglected(connection, older_than=NEGLECT)
        for parent in silent:
            self._recount(parent)
        for parent in neglected:
            if stopped is not None and stopped.is_set():
                break
            row = self._app.jobs.get(parent)
            if row is None or row.status.is_final:
                self.cancel(parent, cancelled_by=None if row is None else row.cancelled_by)
            while self.attend(parent):
                pass
        return len(neglected)

    def _recount(self, parent: JobKey) -> None:
        with self._app.database.transaction() as connection:
            if parent_rows.lock(connection, parent) is None:
                return
            number = parent_rows.recount(connection, parent)
        if number:
            logger.warning("fan_out.recounted", extra={"job_id": str(parent.job_id), "children": number})
        self.attend(parent)

    # -- for people

    def counts(self, parent: JobKey) -> ChildCounts | None:
        """Count a parent's children by status; None when the job is no parent."""
        with self._app.database.connection() as connection:
            return child_rows.counts(connection, parent)

    def members(self, parent: JobKey, *, after: int = -1, limit: int = 100) -> list[Member]:
        """Give a parent's children in their order, after the one at that place (0-based)."""
        with self._app.database.connection() as connection:
            return child_rows.members(connection, parent, after=after, limit=limit)

    @contextmanager
    def _transaction(self) -> Iterator[DriverConnection]:
        """A transaction of our own, in which jobs are sent."""
        with self._app.database.transaction() as connection, self._app.enqueue_on(connection):
            yield connection
