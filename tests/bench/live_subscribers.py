"""Measure live events: many subscribers while jobs change. No test: `python -m tests.bench.live_subscribers`.

The dashboard, those who watch and those who write are processes of their own. At the end what each subscriber was told
is compared with the table.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import re
import socket
import time
from collections import Counter, deque
from datetime import datetime
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import UUID, uuid4

import psycopg

from jobbridge.core.access import Role
from jobbridge.core.keys import TenantId
from jobbridge.dev.postgres import run_postgres
from jobbridge.store.access.tokens import AccessStore
from jobbridge.store.counts.counts import CountStore
from jobbridge.store.database import Database
from jobbridge.store.schema.migrate import migrate

_TENANTS = 200
_FINAL = {"completed", "failed"}
_TICKS = os.sysconf("SC_CLK_TCK")


def tenant_of(number: int) -> str:
    return f"tenant-{number:028d}"


# -- the dashboard


def serve(url: str, port: int) -> None:
    from jobbridge.dashboard.application import make_dashboard
    from jobbridge.dashboard.server import serve
    from jobbridge.settings import load_settings
    from tests.parity.tasks import make_app

    app = make_app(settings=load_settings({"DATABASE_URL": url, "TEMPORAL_ADDRESS": "127.0.0.1:1"}))
    app.finalize()
    serve(make_dashboard(app), host="127.0.0.1", port=port, log_level="warning", access_log=False)


# -- those who watch


class Subscriber:
    def __init__(self, tenant: str | None) -> None:
        self.tenant = tenant
        self.statuses: dict[str, str] = {}
        self.resets = 0
        self.received = 0


class Subscribers:
    """All of them in one process; what several receive alike is parsed once."""

    def __init__(self) -> None:
        self.subscribers: list[Subscriber] = []
        self.latencies: list[float] = []
        self._known: dict[bytes, list[tuple[str, str]]] = {}

    async def watch(self, port: int, token: str, tenant: str | None, opened: asyncio.Semaphore) -> None:
        subscriber = Subscriber(tenant)
        self.subscribers.append(subscriber)
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=64 * 1024 * 1024)
        writer.write(f"GET /events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
        name = b""
        while line := await reader.readline():
            subscriber.received += len(line)
            if line.startswith(b"event: "):
                name = line[7:-1]
                if name == b"open":
                    opened.release()
                subscriber.resets += name == b"reset"
            elif line.startswith(b"data: ") and name == b"jobs":
                subscriber.statuses.update(self._parsed(line))

    def _parsed(self, line: bytes) -> list[tuple[str, str]]:
        known = self._known.get(line)
        if known is None:
            now = time.time()
            jobs = json.loads(line[6:])
            for job in jobs:
                if job["completed_at"]:
                    self.latencies.append(now - _time(job["completed_at"]))
            known = [(job["job_id"], job["status"]) for job in jobs]
            if len(self._known) > 2000:
                self._known.clear()
            self._known[line] = known
        return known


def _time(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def watch(port: int, tokens: list[tuple[str, str | None]], pipe: Connection) -> None:
    async def run() -> None:
        subscribers, opened = Subscribers(), asyncio.Semaphore(0)
        tasks = [
            asyncio.create_task(subscribers.watch(port, token, tenant, opened)) for token, tenant in tokens
        ]
        for _ in tokens:
            await opened.acquire()
        pipe.send("open")
        await asyncio.get_running_loop().run_in_executor(None, pipe.recv)
        for task in tasks:
            task.cancel()
        pipe.send(
            (
                [
                    (subscriber.tenant, subscriber.statuses, subscriber.resets, subscriber.received)
                    for subscriber in subscribers.subscribers
                ],
                subscribers.latencies,
            )
        )

    asyncio.run(run())


# -- those who write


_SUBMIT = """
INSERT INTO jobs (tenant, job_id, task_id, type, status, runner_type, queue)
SELECT 'tenant-' || lpad(floor(200 * random() ^ 2)::text, 28, '0'), job_id, job_id::text, 'invoice.send', 'queued',
    'celery', 'mail'
FROM unnest(%(jobs)s) AS job_id
"""
_START = """
UPDATE jobs SET status = 'processing', attempt = 1, started_at = clock_timestamp(), updated_at = clock_timestamp()
WHERE job_id = ANY(%(jobs)s)
"""
_FINISH = """
UPDATE jobs SET status = CASE WHEN random() < 0.97 THEN 'completed' ELSE 'failed' END, progress = 100,
    completed_at = clock_timestamp(), updated_at = clock_timestamp()
WHERE job_id = ANY(%(jobs)s)
"""


def write(url: str, rate: float, seconds: float) -> None:
    """Have jobs submitted, started a second later and finished after another, five at a time, at a steady rate."""
    waiting: deque[tuple[float, str, list[UUID]]] = deque()
    begun_at, done = time.monotonic(), 0
    with psycopg.connect(url, autocommit=True) as connection:
        while waiting or time.monotonic() < begun_at + seconds:
            now = time.monotonic()
            if now < begun_at + seconds and done < rate * (now - begun_at):
                jobs = [uuid4() for _ in range(5)]
                connection.execute(_SUBMIT, {"jobs": jobs})
                waiting.append((now + 1, _START, jobs))
                done += len(jobs)
            elif waiting and waiting[0][0] <= now:
                _, statement, jobs = waiting.popleft()
                connection.execute(statement, {"jobs": jobs})
                if statement is _START:
                    waiting.append((now + 1, _FINISH, jobs))
            else:
                time.sleep(0.002)


def fold(url: str) -> None:
    """What the service `counter` does."""
    store = CountStore(Database(url))
    while True:
        store.fold()
        time.sleep(5)


# -- all of it


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--subscribers", type=int, default=300)
    options.add_argument("--of-all", type=int, default=60, help="so many of them see all tenants")
    options.add_argument("--rate", type=float, default=500)
    options.add_argument("--seconds", type=float, default=60)
    options.add_argument("--filling", type=int, default=100_000, help="jobs that are there before")
    asked = options.parse_args()
    with TemporaryDirectory(prefix="jobbridge-bench-", dir="/dev/shm") as folder:
        Path(folder).chmod(0o755)
        with run_postgres(Path(folder) / "postgres", is_durable=False) as server:
            url = server.create_database("bench")
            migrate(url)
            _fill(url, asked.filling)
            _measure(url, asked)


_FILL = """
INSERT INTO jobs (tenant, job_id, task_id, type, status, runner_type)
SELECT 'tenant-' || lpad((n %% 200)::text, 28, '0'), gen_random_uuid(), n::text, 'invoice.send',
    (ARRAY['completed', 'failed', 'cancelled'])[1 + n %% 3], 'celery'
FROM generate_series(1, %s) AS n
"""


def _fill(url: str, jobs: int) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(_FILL, [jobs])
        while CountStore(Database(url)).fold():
            pass
        connection.execute("VACUUM ANALYZE")


def _measure(url: str, asked: Any) -> None:
    access = AccessStore(Database(url))
    tokens: list[tuple[str, str | None]] = []
    for number in range(asked.subscribers):
        tenant = None if number < asked.of_all else tenant_of(number % _TENANTS)
        token, _ = access.create(
            str(number), Role.VIEWER, tenant=None if tenant is None else TenantId(tenant)
        )
        tokens.append((token, tenant))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    dashboard = context.Process(target=serve, args=(url, port))
    dashboard.start()
    _wait_for(port)
    watching = context.Process(target=watch, args=(port, tokens, there))
    watching.start()
    folding = context.Process(target=fold, args=(url,), daemon=True)
    folding.start()
    assert here.recv() == "open"
    before, began_at = _cpu(dashboard.pid), time.monotonic()
    writers = [context.Process(target=write, args=(url, asked.rate / 2, asked.seconds)) for _ in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    took = time.monotonic() - began_at
    used = _cpu(dashboard.pid) - before
    time.sleep(5)
    here.send("enough")
    told, latencies = here.recv()
    folding.terminate()
    _report(url, told, latencies, took=took, used=used, memory=_memory(dashboard.pid))
    watching.join()
    began_at = time.monotonic()
    dashboard.terminate()
    dashboard.join()
    print(f"the dashboard stopped within {time.monotonic() - began_at:.1f} s")


def _report(
    url: str, told: list[Any], latencies: list[float], *, took: float, used: float, memory: int
) -> None:
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            "SELECT job_id::text, tenant, status FROM jobs WHERE started_at IS NOT NULL"
        ).fetchall()
        events = connection.execute("SELECT count(*), max(event_id) FROM job_events").fetchone()
    lost = Counter[str]()
    for tenant, statuses, resets, _ in told:
        lost["resets"] += resets
        for job_id, of, status in rows:
            if tenant in (None, of):
                lost["final states"] += 1
                lost["missing or other"] += statuses.get(job_id) != status
            else:
                lost["of another tenant"] += job_id in statuses
    latencies.sort()
    finished = sum(status in _FINAL for *_, status in rows)
    print(
        f"{len(told)} subscribers, {finished} jobs finished in {took:.0f} s: {finished / took:.0f}/s; log {events}"
    )
    print(
        f"dashboard: {used / took:.3f} of a core, {memory / 2**20:.0f} MiB; "
        f"{sum(received for *_, received in told) / took / 2**20:.1f} MiB/s sent"
    )
    print(
        f"from the end of a job to its subscribers: p50 {_at(latencies, 0.5)}, p95 {_at(latencies, 0.95)}, "
        f"p99 {_at(latencies, 0.99)}, most {latencies[-1] * 1000:.0f} ms"
    )
    print(dict(lost))


def _at(latencies: list[float], share: float) -> str:
    return f"{latencies[int(share * (len(latencies) - 1))] * 1000:.0f} ms"


def _cpu(pid: int | None) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _memory(pid: int | None) -> int:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def _wait_for(port: int) -> None:
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            time.sleep(0.05)


if __name__ == "__main__":
    main()
