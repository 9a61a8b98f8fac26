"""The batches of an app: begun, sealed, looked at when a job of one has ended, and ended.

What is between two steps, and who goes on when the process dies there, is told in docs/decisions/0034-batches.md.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from celery.canvas import maybe_signature
from kombu import serialization
from kombu.utils.encoding import str_to_bytes

from jobbridge.app.batches.batch import Batch, id_of, of_running_job
from jobbridge.app.batches.membership import batch_of, joined, joining
from jobbridge.app.errors import sending
from jobbridge.app.execute import tenancy
from jobbridge.app.execute.together import in_one_transaction, is_away, outside_of_tasks
from jobbridge.codec.sealing import key_of
from jobbridge.core.keys import SYSTEM_TENANT, TenantId
from jobbridge.core.status import JobStatus
from jobbridge.core.tenant_names import tenant_named
from jobbridge.errors import BatchEnded, BatchNotFound, JobNotFound, UnsupportedOption
from jobbridge.store.batches import rows
from jobbridge.store.batches.progress import ENDED, BatchProgress, BatchState
from jobbridge.store.batches.rows import BatchRow, BatchStore

if TYPE_CHECKING:
    from jobbridge.app.application import Celery
    from jobbridge.postgres.caller_connection import DriverConnection

logger = logging.getLogger(__name__)

#: Between two looks of one process, however many jobs end meanwhile. Seconds.
PAUSE = 0.1
#: The sweep leaves younger batches to those who end their jobs.
NEGLECT = timedelta(seconds=2)
#: Jobs that are cancelled before it is looked for more.
_PORTION = 200


class Batches:
    """Those of an app.

    Args:
        app: Whose jobs.
    """

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._looker = _Looker(self)

    @property
    def store(self) -> BatchStore:
        """Questions about batches."""
        return BatchStore(self._app.database)

    # -- for those who send

    def new(
        self, name: str, *, tenant: str | None = None, on_success: Any, on_failure: Any, on_complete: Any
    ) -> Batch:
        """Give a batch that begins with its block.

        Raises:
            UnsupportedOption: A callback is no signature, or messages are not in the database of the tables.
        """
        if not self._app.shares_database_with_broker:
            raise UnsupportedOption(
                "A batch needs the broker in the database of the job tables.",
                hint="Use the broker of jobbridge+postgresql://, which is the default.",
            )
        given = {"success": on_success, "failure": on_failure, "complete": on_complete}
        callbacks = {kind: sig for kind, sig in given.items() if sig is not None}
        for kind, sig in callbacks.items():
            if not isinstance(sig, dict):
                raise UnsupportedOption(
                    f"on_{kind} is {sig!r:.60}, which is no signature.",
                    hint="Pass task.s(...) or task.si(...).",
                )
        owner = tenant_named(tenant) if tenant else tenancy.inherited_tenant() or SYSTEM_TENANT
        batch_id = uuid4()
        return Batch(self._app, batch_id, make=lambda: self._open(batch_id, owner, name, callbacks))

    @sending()
    def _open(self, batch_id: UUID, tenant: TenantId, name: str, callbacks: Mapping[str, Any]) -> None:
        stored: bytes | None = None
        kind: str | None = None
        if callbacks:
            serializer = self._app.conf.task_serializer
            told = {name: dict(sig) for name, sig in callbacks.items()}
            content_type, encoding, data = serialization.dumps(told, serializer=serializer)
            kind, stored = f"{content_type} {encoding}", str_to_bytes(data)
            if codec := self._app.database.codec:
                stored = codec.seal(stored, _place(batch_id))
        with self._app.database.transaction(self._app.caller_connection) as connection:
            rows.open_batch(connection, batch_id, tenant, name, callbacks=stored, callbacks_type=kind)

    def open(self, batch_id: UUID | str) -> Batch:
        """Give a batch that there is, to add to it, to look at it, or to cancel it."""
        return Batch(self._app, id_of(batch_id))

    def current(self) -> Batch | None:
        """Give the batch of the job that the calling code runs in; None: it is of none."""
        return of_running_job(self._app)

    def check_open(self, batch_id: UUID) -> None:
        """Make sure that it takes jobs.

        Raises:
            BatchNotFound: There is none of that id.
            BatchEnded: It has ended, or was cancelled.
        """
        with self._app.database.transaction(self._app.caller_connection) as connection:
            state = rows.state_of(connection, batch_id)
        if state is None:
            raise BatchNotFound.with_id(str(batch_id))
        if state in ENDED:
            raise BatchEnded(f"The batch {batch_id} is {state.value}, and takes no more jobs.")

    @sending()
    def seal(self, batch_id: UUID) -> None:
        """Note that its block has ended, and look whether its jobs have."""
        if (bulk := self._app.open_bulk) is not None:
            bulk.finish()  # its last jobs come before its end
        caller = self._app.caller_connection
        with self._app.database.transaction(caller) as connection:
            rows.seal(connection, batch_id)
        if caller is None:
            self.attend_safely(batch_id)

    def progress(self, batch_id: UUID) -> BatchProgress:
        """Give how it is.

        Raises:
            BatchNotFound: There is none of that id.
        """
        found = self.store.progress(batch_id)
        if found is None:
            raise BatchNotFound.with_id(str(batch_id))
        return found

    def cancel(self, batch_id: UUID, *, reason: str | None = None, cancelled_by: str | None = None) -> bool:
        """Cancel its jobs that have not ended; nothing follows, and nothing joins. False: it had ended.

        Raises:
            BatchNotFound: There is none of that id.
        """
        if (bulk := self._app.open_bulk) is not None and self._app.caller_connection is None:
            bulk.finish()
        with self._app.database.transaction(self._app.caller_connection) as connection:
            is_new = rows.cancel(connection, batch_id, reason)
            rows.drop_chords(connection, batch_id)
            state = rows.state_of(connection, batch_id)
        if state is None:
            raise BatchNotFound.with_id(str(batch_id))
        if state is BatchState.CANCELLED and self._app.caller_connection is None:
            self._cancel_jobs(batch_id, reason, cancelled_by)
        return is_new

    def _cancel_jobs(self, batch_id: UUID, reason: str | None, cancelled_by: str | None) -> int:
        """Cancel what is open of it, and note that nothing is; gives how many."""
        cancelled = 0
        while True:
            with self._app.database.connection() as connection:
                found = rows.open_jobs(connection, batch_id, limit=_PORTION)
            if not found:
                break
            for key in found:
                try:
                    told = reason or "Its batch was cancelled."
                    cancelled += self._app.cancel_job(
                        key.job_id, key.tenant, reason=told, cancelled_by=cancelled_by
                    )
                except JobNotFound:
                    continue  # it was pruned meanwhile
        with self._app.database.transaction() as connection:
            row = rows.lock(connection, batch_id)
            if row is not None and row.state is BatchState.CANCELLED:
                rows.end(connection, batch_id, BatchState.CANCELLED, rows.counts(connection, batch_id))
        return cancelled

    # -- for those who send what follows from a job of one

    def joined(self) -> UUID | None:
        """Give the batch that jobs join which are sent here; None: none."""
        return joined()

    def joining(self, batch_id: str | None) -> AbstractContextManager[None]:
        """Have what is sent inside join that batch, if any; and no other."""
        return joining(UUID(batch_id) if batch_id else None)

    def going_on(self, request: Any) -> AbstractContextManager[None]:
        """Have the next link of a chain join the batch of the one before."""
        return joining(batch_of(request))

    # -- when jobs have ended

    def note_end_of(self, request: Any) -> None:
        """A job has ended here: if it is of a batch, that is looked at in a moment, on a thread of its own."""
        if (batch_id := batch_of(request)) is not None:
            self.note(batch_id)

    def note(self, batch_id: UUID) -> None:
        """Look at it in a moment. Never waits."""
        if self._looker.pid != os.getpid():  # its lock may have been held when this process was forked
            self._looker = _Looker(self)
        self._looker.note(batch_id)

    def attend_safely(self, batch_id: UUID) -> None:
        """Do as `attend`; trouble is logged: the sweep comes by."""
        try:
            self.attend(batch_id)
        except Exception as error:  # a job has just ended here, which must not suffer from it
            logger.warning("batch.not_attended", extra={"batch": str(batch_id), "error": repr(error)})

    def attend(self, batch_id: UUID) -> bool:
        """End it and send what follows, if nothing is waited for any more. Safe at any time, from any process."""
        with self._app.database.connection() as connection:
            if not rows.is_due(connection, batch_id):
                return False
        with joining(None), outside_of_tasks(), in_one_transaction(self._app) as opened:
            row = rows.lock(opened.connection, batch_id)
            # Who added a job held the row until now, and that job is seen by the next statement.
            if (
                row is None
                or row.state is not BatchState.SEALED
                or not rows.is_due(opened.connection, batch_id)
            ):
                return False
            statuses = rows.counts(opened.connection, batch_id)
            is_good = set(statuses) <= {JobStatus.COMPLETED}
            state = BatchState.COMPLETED if is_good else BatchState.FAILED
            rows.end(opened.connection, batch_id, state, statuses)
            self._call_back(opened.connection, batch_id, row, is_good=is_good)
        logger.info("batch.ended", extra={"batch": str(batch_id), "state": state.value})
        return True

    def _call_back(
        self, connection: DriverConnection, batch_id: UUID, row: BatchRow, *, is_good: bool
    ) -> None:
        callbacks = self._callbacks(batch_id, row)
        with ExitStack() as entered:
            if row.tenant != SYSTEM_TENANT:
                entered.enter_context(tenancy.tenant_context(row.tenant))
            for kind in ("success" if is_good else "failure", "complete"):
                if (told := callbacks.get(kind)) is None:
                    continue
                try:
                    with connection.transaction():
                        signature: Any = maybe_signature(told, app=self._app)
                        signature.apply_async()
                except Exception as error:
                    if is_away(error):
                        raise
                    logger.exception(
                        "batch.callback_not_sent", extra={"batch": str(batch_id), "callback": kind}
                    )

    def _callbacks(self, batch_id: UUID, row: BatchRow) -> Mapping[str, Any]:
        if row.callbacks is None or row.callbacks_type is None:
            return {}
        content_type, encoding = row.callbacks_type.split()
        is_sealed = key_of(row.callbacks) is not None
        data = self._app.database.codec.open(row.callbacks, _place(batch_id)) if is_sealed else row.callbacks
        accepted = self._app.backend.accept | {content_type}
        told: Mapping[str, Any] = serialization.loads(data, content_type, encoding, accept=accepted)
        return told

    def sweep(self, stopped: threading.Event | None = None) -> int:
        """See to batches in which something was left undone; gives their number. Any number of processes may do so."""
        found = self._app.database.run(lambda own: rows.left(own, neglect=NEGLECT))
        attended = 0
        for batch_id, state in found:
            if stopped is not None and stopped.is_set():
                break
            try:
                if state is BatchState.CANCELLED:
                    self._cancel_jobs(batch_id, None, None)
                    attended += 1
                else:
                    attended += self.attend(batch_id)
            except Exception as error:
                logger.warning("batch.not_attended", extra={"batch": str(batch_id), "error": repr(error)})
        return attended


class _Looker:
    """The thread of one process; there while there is something to look at."""

    def __init__(self, batches: Batches) -> None:
        self.pid = os.getpid()
        self._batches = batches
        self._noted: set[UUID] = set()
        self._lock = threading.Lock()
        self._rest = threading.Event()
        self._is_looking = False

    def note(self, batch_id: UUID) -> None:
        with self._lock:
            self._noted.add(batch_id)
            if self._is_looking:
                return
            self._is_looking = True
        threading.Thread(target=self._look, name="jobbridge-batches", daemon=True).start()

    def _look(self) -> None:
        while True:
            with self._lock:
                noted, self._noted = self._noted, set()
                self._is_looking = bool(noted)
            if not noted:
                return
            for batch_id in noted:
                self._batches.attend_safely(batch_id)
            self._rest.wait(PAUSE)


def _place(batch_id: UUID) -> str:
    return f"batches/{batch_id}"
