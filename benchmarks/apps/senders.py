"""How each system sends: the calls that its documentation shows."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import islice
from typing import Any, Protocol

import psycopg

PORTION = 500  # jobs in one call, where the caller makes the portions; as many as ours makes by itself


CALLERS = 50  # threads, or as many calls in flight


class Sender(Protocol):
    """What a run may ask for; not every system can do all (see `benchmarks.systems`)."""

    def prepare(self) -> None:
        """Make the tables, once for a database that others are copied from."""

    def send(self, number: int) -> None:
        """Send one job."""

    def send_many(self, numbers: Iterable[int]) -> None:
        """Send many, in the way that the system has for that."""

    def send_from_many(self, numbers: Iterable[int]) -> None:
        """Send them one by one, from 50 callers at the same time."""

    def ask(self, number: int, seconds: float) -> int:
        """Send a job that takes so long, and wait for its result."""

    def group(self, numbers: Iterable[int]) -> None:
        """Send them as a group."""

    def chord(self, size: int) -> int:
        """Send a chord, and wait for its body's result."""


class CelerySender:
    """Ours, and Celery on any broker."""

    def __init__(self) -> None:
        from benchmarks.apps import celery_app

        self._apps = celery_app

    def prepare(self) -> None:
        from jobbridge.store.schema.migrate import migrate

        migrate(os.environ["DATABASE_URL"])

    def send(self, number: int) -> None:
        self._apps.note.delay(number)

    def send_many(self, numbers: Iterable[int]) -> None:
        with ExitStack() as stack:
            if self._apps.IS_OURS:
                stack.enter_context(self._apps.app.bulk())
            for number in numbers:
                self._apps.note.delay(number)

    def send_from_many(self, numbers: Iterable[int]) -> None:
        with ThreadPoolExecutor(CALLERS) as callers:
            for _ in callers.map(self.send, numbers):
                pass

    def ask(self, number: int, seconds: float) -> int:
        return int(self._apps.echo.delay(number, seconds).get(timeout=30))

    def group(self, numbers: Iterable[int]) -> None:
        from celery import group

        group(self._apps.note.s(number) for number in numbers).apply_async()

    def chord(self, size: int) -> int:
        from celery import chord

        body = self._apps.total.s()
        return int(chord(self._apps.echo.s(number) for number in range(size))(body).get(timeout=300))


class PotatoqSender:
    """Potatoq, on Postgres."""

    def __init__(self) -> None:
        from benchmarks.apps import potatoq_app

        self._apps = potatoq_app

    def prepare(self) -> None:
        pass  # its first user makes the tables

    def send(self, number: int) -> None:
        self._apps.note.delay(number)

    def send_many(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            self._apps.note.delay(number)

    def ask(self, number: int, seconds: float) -> int:
        return int(self._apps.echo.delay(number, seconds).get(timeout=30))

    def group(self, numbers: Iterable[int]) -> None:
        from potatoq import group

        group(self._apps.note.s(number) for number in numbers).apply_async()

    def chord(self, size: int) -> int:
        from potatoq import chord

        body = self._apps.total.s()
        return int(chord([self._apps.echo.s(number) for number in range(size)])(body).get(timeout=300))


class ProcrastinateSender:
    """Procrastinate, from synchronous code."""

    def __init__(self) -> None:
        from benchmarks.apps import procrastinate_app

        self._apps = procrastinate_app
        self._apps.app.open()

    def prepare(self) -> None:
        self._apps.app.schema_manager.apply_schema()

    def send(self, number: int) -> None:
        self._apps.note.defer(number=number)

    def send_many(self, numbers: Iterable[int]) -> None:
        remaining = iter(numbers)
        while portion := list(islice(remaining, PORTION)):
            self._apps.note.batch_defer(*({"number": number} for number in portion))

    def ask(self, number: int, seconds: float) -> int:
        raise NotImplementedError

    def group(self, numbers: Iterable[int]) -> None:
        raise NotImplementedError

    def chord(self, size: int) -> int:
        raise NotImplementedError


class LimitSender:
    """No queue: what Postgres itself can do with one session, a table and an index."""

    _TABLE = """
    CREATE TABLE limit_messages (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        queue text NOT NULL, priority smallint NOT NULL, body text NOT NULL
    );
    CREATE INDEX limit_messages_next ON limit_messages (queue, priority DESC, id);
    """
    _INSERT = "INSERT INTO limit_messages (queue, priority, body) VALUES ('celery', 0, %s)"
    _TAKE = """
    DELETE FROM limit_messages WHERE id IN (
        SELECT id FROM limit_messages WHERE queue = 'celery' ORDER BY priority DESC, id LIMIT %s FOR UPDATE SKIP LOCKED
    ) RETURNING body
    """

    def __init__(self) -> None:
        self._connection = psycopg.connect(os.environ["BENCH_DATABASE"], autocommit=True)

    def prepare(self) -> None:
        self._connection.execute(self._TABLE)

    def send(self, number: int) -> None:
        self._connection.execute(self._INSERT, [self._body(number)])

    def send_many(self, numbers: Iterable[int]) -> None:
        remaining = iter(numbers)
        with self._connection.cursor() as cursor:
            while portion := list(islice(remaining, PORTION)):
                with self._connection.transaction():
                    cursor.executemany(self._INSERT, [[self._body(number)] for number in portion])

    def take(self, at_most: int) -> list[int]:
        """Claim and delete, in one statement and one commit; the numbers of the jobs that these were."""
        rows = self._connection.execute(self._TAKE, [at_most]).fetchall()
        return [json.loads(body)["number"] for (body,) in rows]

    def ask(self, number: int, seconds: float) -> int:
        raise NotImplementedError

    def group(self, numbers: Iterable[int]) -> None:
        raise NotImplementedError

    def chord(self, size: int) -> int:
        raise NotImplementedError

    @staticmethod
    def _body(number: int) -> str:
        # As many bytes as one of Celery's messages.
        return json.dumps({"number": number, "filling": "x" * 900})


def _temporal_sender() -> Sender:
    from benchmarks.apps.temporal_app import TemporalSender

    return TemporalSender()


SENDERS: dict[str, Any] = {
    "celery": CelerySender,
    "potatoq": PotatoqSender,
    "procrastinate": ProcrastinateSender,
    "limit": LimitSender,
    "temporal": _temporal_sender,
}
