"""What an app's `with` blocks change for what is sent inside: whose transaction it is, and how many go at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, cast

from psycopg.pq import TransactionStatus

from jobbridge.app.errors import sending
from jobbridge.app.publish.bulk import PORTION, Bulk
from jobbridge.django import default_connection
from jobbridge.errors import UnsupportedOption
from jobbridge.postgres.caller_connection import driver_connection

if TYPE_CHECKING:
    from jobbridge.app.application import Celery


class Blocks:
    """The part of the app that has them."""

    def _make_blocks(self) -> None:
        self._caller_connection: ContextVar[Any] = ContextVar("jobbridge_caller_connection", default=None)
        self._open_bulk: ContextVar[Bulk | None] = ContextVar("jobbridge_open_bulk", default=None)

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

    @contextmanager
    def transaction(self, connection: Any = None) -> Iterator[None]:
        """Send what is sent inside in the caller's transaction: its commit delivers, its rollback leaves nothing.

        On both engines; ids are known at once. The transaction is begun and ended by the caller.

        Args:
            connection: Of psycopg 3, a SQLAlchemy Connection or Session on one, or Django's; None: Django's default.

        Raises:
            UnsupportedOption: It is none of these, or commits each statement by itself now.
            ConfigurationError: None is named, and there is no Django here.
        """
        connection = default_connection() if connection is None else connection
        driver = driver_connection(connection)
        if driver.autocommit and driver.info.transaction_status == TransactionStatus.IDLE:
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
        return self._caller_connection.get()
