"""`jobbridge.batch`: batches of the app that is meant when none is named."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

from jobbridge.runners.apps import current_app

if TYPE_CHECKING:
    from jobbridge.app.application import Celery
    from jobbridge.app.batches.batch import Batch


class BatchMaker:
    """What `jobbridge.batch` is."""

    def __call__(
        self,
        name: str = "",
        *,
        on_success: Any = None,
        on_failure: Any = None,
        on_complete: Any = None,
        tenant: str | None = None,
        app: Celery | None = None,
    ) -> Batch:
        """Give a batch: `with jobbridge.batch("import", on_success=done.si()) as batch:`. It begins with the block.

        Callbacks are signatures, sent as they are, once, when the block and all jobs have ended.

        Args:
            name: For people.
            on_success: Sent if all jobs completed.
            on_failure: Sent if not all did.
            on_complete: Sent in both cases.
            tenant: Whose; by default the current tenant's.
            app: Whose jobs.

        Raises:
            UnsupportedOption: A callback is no signature, or messages are not in the database of the tables.
        """
        batches = (app or current_app()).batches
        told = {"on_success": on_success, "on_failure": on_failure, "on_complete": on_complete}
        return batches.new(name, tenant=tenant, **told)

    def open(self, batch_id: UUID | str, *, app: Celery | None = None) -> Batch:
        """Give a batch that there is: to add jobs in a further block (or by `add`), to look at it, to cancel it."""
        return (app or current_app()).batches.open(batch_id)

    def current(self, *, app: Celery | None = None) -> Batch | None:
        """Give the batch of the job that the calling code runs in; None: it is of none."""
        return (app or current_app()).batches.current()


batch = BatchMaker()
