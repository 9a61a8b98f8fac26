"""Servers that a test stops, kills and starts again on the same port and files; and what Temporal says of jobs."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from jobbridge.core.keys import Engine
from jobbridge.core.light import activity_id_in
from jobbridge.dev.postgres import PostgresServer, run_postgres
from jobbridge.dev.process import free_port
from jobbridge.dev.temporal import TemporalServer, run_temporal


class StoppablePostgres:
    """A server of one test alone."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._port = folder, free_port()
        self._running = ExitStack()
        self.server: PostgresServer

    def start(self) -> None:
        self.server = self._running.enter_context(run_postgres(self._folder, port=self._port))

    def stop(self) -> None:
        self._running.close()


class StoppableTemporal:
    """The same, of Temporal."""

    def __init__(self, folder: Path) -> None:
        self._folder, self.port = folder, free_port()
        self._running = ExitStack()
        self._starts = 0
        self.server: TemporalServer

    def start(self) -> None:
        self._starts += 1
        log = self._folder / f"temporal-{self._starts}.log"
        running = run_temporal(port=self.port, database=self._folder / "temporal.sqlite", log_path=log)
        self.server = self._running.enter_context(running)

    def stop(self) -> None:
        self._running.close()

    def kill(self) -> None:
        self.server.process.kill()
        self.stop()


@contextmanager
def stoppable_postgres(parent: Path) -> Iterator[StoppablePostgres]:
    server = StoppablePostgres(parent / f"postgres-{uuid.uuid4().hex[:8]}")
    server.start()
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def stoppable_temporal(parent: Path) -> Iterator[StoppableTemporal]:
    folder = parent / f"temporal-{uuid.uuid4().hex[:8]}"
    folder.mkdir()
    server = StoppableTemporal(folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def statuses_at_temporal(app: Any, rows: list[dict[str, Any]]) -> dict[str, str]:
    """Give what Temporal says of each row's workflow or activity, by external id: COMPLETED, RUNNING, …, or ABSENT."""

    async def describe(client: Client) -> dict[str, str]:
        found: dict[str, str] = {}
        for external_id in {row["external_id"] or str(row["job_id"]) for row in rows}:
            activity_id = activity_id_in(external_id)
            handle: Any = (
                client.get_activity_handle(activity_id)
                if activity_id
                else client.get_workflow_handle(external_id)
            )
            try:
                status = (await handle.describe()).status
            except RPCError as error:
                if error.status is not RPCStatusCode.NOT_FOUND:
                    raise
                found[external_id] = "ABSENT"
            else:
                found[external_id] = "NONE" if status is None else status.name
        return found

    answer: dict[str, str] = app.delivery(Engine.TEMPORAL).client.call(describe)
    return answer
