"""What an app's `with` blocks change for what is sent inside: whose transaction it is, and how many go at a time."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import psycopg
from psycopg.pq import TransactionStatus

from jobbridge.app.batches.batches import Batches
from jobbridge.app.django_transaction import DjangoTransaction
from jobbridge.app.errors import sending
from jobbridge.app.loops.either import either
from jobbridge.app.publish.bulk import PORTION, Bulk
from jobbridge.errors import UnsupportedOption
from jobbridge.postgres.caller_connection import default_connection, driver_connection, is_async

if TYPE_CHECKING:
    from jobbridge.app.application import Celery

#: In the place of a caller's connection: there is none, whatever Django has open.
_APART = object()


def _commits_by_itself(connection: Any) -> bool:
    if is_async(connection) and not isinstance(connection, psycopg.AsyncConnection):
        return False  # SQLAlchemy begins its transaction with the first statement
    driver = connection if isinstance(connection, psycopg.AsyncConnection) else driver_connection(connection)
    return driver.autocommit and driver.info.transaction_status == TransactionStatus.IDLE


class Blocks:
    """The part of the app that has them."""

    def _make_blocks(self) -> None:
        self._caller_connection: ContextVar[Any] = ContextVar("jobbridge_caller_connection", default=None)
        self.django_transaction = DjangoTransaction(self._as_app())
        self._open_bulk: ContextVar[Bulk | None] = ContextVar("jobbridge_open_bulk", default=None)

    @cached_property
    def batches(self) -> Batches:
        """Jobs that belong together, and what follows when all have ended."""
        return Batches(self._as_app())

    def _as_app(self) -> Celery:
        return cast("Celery", self)

    @contextmanager
    def enqueue_on(self, connection: Any) -> Iterator[None]:
        """Send tasks in the caller's own transaction: commit enqueues them, rollback leaves nothing.

        Args:
            connection: A psycopg connection, an SQLAlchemy Connection or Session on one, or Django's.
        """
        token = self._caller_connection.set(connection)
        try:
            yield
        finally:
            self._caller_connection.reset(token)

    def enqueue_apart(self) -> AbstractContextManager[None]:
        """Send tasks in nobody's transaction, whichever is open here."""
        return self.enqueue_on(_APART)

    @either
    def transaction(self, connection: Any = None) -> Iterator[None]:
        """Send what is sent inside in the caller's transaction: its commit delivers, its rollback leaves nothing.

        On both engines; ids are known at once. The transaction is begun and ended by the caller.

        Args:
            connection: Of psycopg 3, a SQLAlchemy Connection or Session on one, or Django's; None: Django's default.
                Also the asynchronous ones of psycopg and SQLAlchemy: inside it is `await task.adelay(...)`.

        Raises:
            UnsupportedOption: It is none of these, or commits each statement by itself now.
            ConfigurationError: None is named, and there is no Django here.
        """
        connection = default_connection() if connection is None else connection
        if _commits_by_itself(connection):
            raise UnsupportedOption(
                "The connection is in autocommit mode, and no transaction is open on it.",
                hint="Begin it before: `with atomic():` of Django, `with connection.transaction():` of psycopg.",
            )
        with self.enqueue_on(connection):
            yield

    @contextmanager
    def bulk(self, *, portion: int = PORTION, is_asked_for: bool = True) -> Iterator[None]:
        """Send what is sent inside in few statements: ids are known at once, a portion is written when it is full.

        Leaving the block writes the rest; an exception inside discards what is not written yet. Inside a transaction
        of the caller's (`transaction`, `enqueue_on`) it is all or nothing. A block inside another one is part of that.

        Args:
            portion: So many jobs are written at a time.
            is_asked_for: False: jobs for Temporal wait only while it answers, or if the relay takes them anyhow.
        """
        if (outer := self._open_bulk.get()) is not None and outer.is_on(self.caller_connection):
            yield
            return
        bulk = Bulk(self._as_app(), portion=portion, is_asked_for=is_asked_for)
        token = self._open_bulk.set(bulk)
        try:
            yield
            with sending():
                bulk.finish()
        finally:
            self._open_bulk.reset(token)

    @property
    def open_bulk(self) -> Bulk | None:
        """The `bulk` block that is going on, if any."""
        return self._open_bulk.get()

    @property
    def caller_connection(self) -> Any:
        """Whose transaction it is that is sent in: what a block names, else Django's that is open; None: nobody's."""
        connection = self._caller_connection.get()
        if connection is None:
            return self.django_transaction.open_one() if "django.db" in sys.modules else None
        return None if connection is _APART else connection

    def _apart_if_it_goes_on(self, options: Mapping[str, Any]) -> AbstractContextManager[None]:
        """Keep the running job's own next message out of Django's transaction: what it raises rolls that back."""
        if "django.db" not in sys.modules or self._caller_connection.get() is not None:
            return nullcontext()
        running = self._as_app().current_worker_task
        if running is None or running.request.id != options.get("task_id"):
            return nullcontext()
        return self.enqueue_on(_APART)
