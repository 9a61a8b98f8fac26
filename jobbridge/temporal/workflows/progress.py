"""The progress that signals tell: kept for the query, and written into the row, in bounded history.

A handler's own reports never come here: they go into its row, and the query reads them there (`live`).
"""

from __future__ import annotations

from datetime import timedelta

from temporalio import workflow

from jobbridge.temporal.wire.contract import JobInput, StatusUpdate
from jobbridge.temporal.wire.signals import ProgressUpdate
from jobbridge.temporal.workflows import books

#: Workflows that began under an earlier release write one progress right after the other.
PACED = "paces-progress"
#: What comes meanwhile is written together. The pause grows with each writing, so that ten thousand signals, which is
#: all that a run may receive, leave room in its history.
FIRST_PAUSE, PAUSE_GROWTH, LONGEST_PAUSE = 0.5, 0.05, 60.0  # seconds


class ToldProgress:
    """The latest progress that a signal told.

    Attributes:
        is_unwritten: The row does not have it yet.
        is_writing: It is being written, or a pause is made after that.
    """

    def __init__(self) -> None:
        self.progress = 0.0
        self.message: str | None = None
        self.is_unwritten = False
        self._is_told = False
        self.is_writing = False
        self._is_stopping = False
        self._writings = 0

    async def take(self, update: ProgressUpdate, job: JobInput | None) -> None:
        """Keep it, and see that the row has it."""
        self.progress, self.message, self._is_told = update.progress, update.message, True
        if not update.is_recorded:
            self.is_unwritten = True
            await self.write(job)

    async def write(self, job: JobInput | None) -> None:
        """Write the latest until there is nothing newer; returns at once where that is under way."""
        if self.is_writing or job is None:
            return
        self.is_writing = True
        try:
            while self.is_unwritten and not self._is_stopping:
                self.is_unwritten = False
                await books.update_status(self._as_update(job))
                self._writings += 1
                await self._pause()
        finally:
            self.is_writing = False

    def take_up(self, progress: float, message: str | None) -> None:
        """Go on from what the run before knew; what a signal told this one already is newer."""
        if not self._is_told:
            self.progress, self.message = progress, message

    async def catch_up(self, job: JobInput) -> None:
        """Write what the run before could not, or what was told before this one knew its job."""
        if workflow.patched(PACED):
            await self.write(job)

    def stop(self) -> None:
        """Leave what is not written to the next run."""
        self._is_stopping = True

    def go_on(self) -> None:
        """The run goes on after all."""
        self._is_stopping = False

    async def _pause(self) -> None:
        if not workflow.patched(PACED):
            return
        pause = min(LONGEST_PAUSE, FIRST_PAUSE + PAUSE_GROWTH * self._writings)
        try:
            await workflow.wait_condition(
                lambda: self._is_stopping,
                timeout=timedelta(seconds=pause),
                timeout_summary="between two writings of progress",
            )
        except TimeoutError:
            return

    def _as_update(self, job: JobInput) -> StatusUpdate:
        return StatusUpdate(
            job_id=job.job_id,
            tenant_id=job.tenant_id,
            status="processing",
            progress=self.progress,
            reason=self.message,
        )
