"""Temporal without us: a worker and a client as its documentation shows them.

`python -m benchmarks.apps.temporal_app` is the worker.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar
from uuid import uuid4

import psycopg
from temporalio import activity
from temporalio.client import Client
from temporalio.worker import Worker

from benchmarks.apps import tasks
from benchmarks.apps.temporal_workflows import BareChord, BareJob, FiveChord, FiveJob

Value = TypeVar("Value")

IN_FLIGHT = 50
_IS_FIVE = os.environ["BENCH_SYSTEM"] == "temporal_five"
_JOB, _CHORD = ("fiveJob", "fiveChord") if _IS_FIVE else ("bareJob", "bareChord")
TABLES = """
CREATE TABLE five_jobs (job_id text PRIMARY KEY, status text NOT NULL, updated_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE five_details (
    job_id text NOT NULL, name text NOT NULL, status text NOT NULL, updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (job_id, name)
);
"""
_STATUS = """
INSERT INTO five_jobs (job_id, status) VALUES (%s, %s)
ON CONFLICT (job_id) DO UPDATE SET status = excluded.status, updated_at = now()
"""
_DETAIL = """
INSERT INTO five_details (job_id, name, status) VALUES (%s, %s, %s)
ON CONFLICT (job_id, name) DO UPDATE SET status = excluded.status, updated_at = now()
"""


@activity.defn(name="note")
def note(number: int, seconds: float) -> None:
    """Write to the ledger."""
    tasks.note(number)


@activity.defn(name="echo")
def echo(number: int, seconds: float) -> int:
    """Give the number back, after some time."""
    return tasks.echo(number, seconds)


class Books:
    """The original's other activities, with a connection for each thread."""

    def __init__(self) -> None:
        self._own = threading.local()

    def _write(self, statement: str, *values: str) -> None:
        if not hasattr(self._own, "connection"):
            self._own.connection = psycopg.connect(os.environ["BENCH_DATABASE"], autocommit=True)
        self._own.connection.execute(statement.encode(), values)

    @activity.defn(name="updateJobStatus")
    def update_job_status(self, job: str, status: str) -> None:
        """Write the job's row."""
        self._write(_STATUS, job, status)

    @activity.defn(name="createJobDetail")
    def create_job_detail(self, job: str, name: str) -> None:
        """Begin a step."""
        self._write(_DETAIL, job, name, "processing")

    @activity.defn(name="completeJobDetail")
    def complete_job_detail(self, job: str, name: str) -> None:
        """End it."""
        self._write(_DETAIL, job, name, "completed")

    @property
    def all(self) -> list[Callable[..., Any]]:
        return [self.update_job_status, self.create_job_detail, self.complete_job_detail]


class TemporalSender:
    """The client."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._connected: Client | None = None

    @property
    def _client(self) -> Client:
        if self._connected is None:
            self._connected = self._loop.run_until_complete(_connect())
        return self._connected

    def prepare(self) -> None:
        with psycopg.connect(os.environ["BENCH_DATABASE"]) as connection:
            connection.execute(TABLES.encode())

    def send(self, number: int) -> None:
        self._loop.run_until_complete(self._start(self._client, number))

    def send_many(self, numbers: Iterable[int]) -> None:
        client = self._client

        async def start_all() -> None:
            turns = asyncio.Semaphore(IN_FLIGHT)

            async def one(number: int) -> None:
                async with turns:
                    await self._start(client, number)

            await asyncio.gather(*map(one, numbers))

        self._loop.run_until_complete(start_all())

    def send_from_many(self, numbers: Iterable[int]) -> None:
        self.send_many(numbers)

    def group(self, numbers: Iterable[int]) -> None:
        self.send_many(numbers)

    def ask(self, number: int, seconds: float) -> int:
        return int(self._result(_JOB, ("echo", number, seconds)))

    def chord(self, size: int) -> int:
        return int(self._result(_CHORD, (size,)))

    def _result(self, name: str, arguments: Iterable[Any]) -> Any:
        client = self._client
        working: Awaitable[Any] = client.execute_workflow(
            name, args=list(arguments), id=str(uuid4()), task_queue=_task_queue()
        )
        return self._loop.run_until_complete(working)

    @staticmethod
    async def _start(client: Client, number: int) -> None:
        await client.start_workflow(
            _JOB, args=["note", number, 0.0], id=str(uuid4()), task_queue=_task_queue()
        )


def _task_queue() -> str:
    return os.environ["TEMPORAL_JOB_TASK_QUEUE"]


async def _connect() -> Client:
    return await Client.connect(os.environ["TEMPORAL_ADDRESS"])


async def work() -> None:
    """Run the worker until it is killed; the SDK's own defaults, and activities of plain functions."""
    books: list[Callable[..., Any]] = Books().all if _IS_FIVE else []
    worker = Worker(
        await _connect(),
        task_queue=_task_queue(),
        workflows=[BareJob, FiveJob, BareChord, FiveChord],
        activities=[note, echo, *books],
        activity_executor=ThreadPoolExecutor(20),
    )
    await worker.run()


if __name__ == "__main__":
    asyncio.run(work())
