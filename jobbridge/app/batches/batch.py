"""The block of a batch, as its users have it."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID

from jobbridge.app.batches.membership import batch_of, joining
from jobbridge.errors import UnsupportedOption
from jobbridge.postgres import on_loop
from jobbridge.store.batches.progress import BatchProgress

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from jobbridge.app.application import Celery


class Batch:
    """Jobs that are sent inside the block belong to it. When it and all of them have ended, the callbacks follow.

    Inside one of its jobs, or anywhere until it has ended, more are added in another block: `with batch.open(id):`.
    An exception that leaves the block which made it cancels it.

    Args:
        app: Whose jobs.
        batch_id: Its id.
        make: Makes its row when the block begins; None: it is there.

    Attributes:
        id: A uuid, as text: to be passed to jobs.
    """

    def __init__(self, app: Celery, batch_id: UUID, *, make: Any = None) -> None:
        self._app, self._batch_id, self._make = app, batch_id, make
        self._blocks: list[AbstractContextManager[None]] = []
        self._is_maker = False
        self.id = str(batch_id)

    def __enter__(self) -> Self:
        self._begin()
        self._join()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._blocks.pop().__exit__(None, None, None)
        self._end(error)

    async def __aenter__(self) -> Self:
        await on_loop.run(self._begin)
        self._join()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._blocks.pop().__exit__(None, None, None)
        await on_loop.run(self._end, error)

    def _begin(self) -> None:
        make, self._make = self._make, None
        self._is_maker = make is not None
        if make is not None:
            make()
        else:
            self._app.batches.check_open(self._batch_id)

    def _join(self) -> None:
        block = joining(self._batch_id)
        block.__enter__()
        self._blocks.append(block)

    def _end(self, error: BaseException | None) -> None:
        if error is None:
            self._app.batches.seal(self._batch_id)
        elif self._is_maker:
            self.cancel(reason=f"Its block ended by {type(error).__name__}: {error}")

    def add(self, signature: Any, **options: Any) -> Any:
        """Send one more job of it, with options of `apply_async`; gives its result.

        Raises:
            BatchEnded: It takes no more.
        """
        self._app.batches.check_open(self._batch_id)
        with joining(self._batch_id):
            return signature.apply_async(**options)

    def progress(self) -> BatchProgress:
        """Give how it is, and how many of its jobs are in which status."""
        return self._app.batches.progress(self._batch_id)

    def cancel(self, *, reason: str | None = None, cancelled_by: str | None = None) -> bool:
        """Cancel its jobs that have not ended; nothing follows any more. False: it had ended."""
        return self._app.batches.cancel(self._batch_id, reason=reason, cancelled_by=cancelled_by)

    def __repr__(self) -> str:
        return f"<Batch {self.id}>"


def id_of(told: UUID | str) -> UUID:
    """Read the id of a batch.

    Raises:
        UnsupportedOption: It is no uuid.
    """
    try:
        return told if isinstance(told, UUID) else UUID(str(told))
    except ValueError:
        raise UnsupportedOption(
            f"The id of a batch is {told!r:.60}, which is no uuid.", hint="Pass batch.id."
        ) from None


def of_running_job(app: Celery) -> Batch | None:
    """Give the batch of the job that the calling code runs in; None: it is of none."""
    task = app.current_worker_task
    batch_id = None if task is None else batch_of(task.request)
    return None if batch_id is None else Batch(app, batch_id)
