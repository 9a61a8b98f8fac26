"""Where the processor's time goes when jobs are sent: `python -m tests.bench.send_cpu [--jobs 300] [--rounds 15]`.

Microseconds of processor time for a job, of the client (`time.process_time`) and of its Postgres backend
(`/proc/PID/schedstat`, the flush of the log included), and bytes of write-ahead log. All ways are taken in turn, in
each round; the least is told, for what else the machine does only adds. On a server of its own, as durable as in
production.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import celery
import psycopg

from jobbridge import Celery
from jobbridge.broker import Parcel
from jobbridge.core.events import Recorded
from jobbridge.core.status import JobStatus
from jobbridge.dev.postgres import run_postgres
from jobbridge.recording import JobRecorder, PlainJob
from jobbridge.runners.runner import CeleryJobRunner
from jobbridge.settings import load_settings
from jobbridge.store.jobs.submit import insert_plain
from tests.bench.budget import _QUIET, Meter, _close, _make_database, make_tracked

_WATCHER = "watcher"
_TEXT_IDS = ("task_id", "external_id", "correlation_id")
_BARE = "CREATE TABLE public.bare (id bigint GENERATED ALWAYS AS IDENTITY, body text)"
_OURS = "SELECT pid FROM pg_stat_activity WHERE usename = 'jobbridge' AND datname = current_database()"


class Ways:
    """The ways to send, each as a function that sends so many."""

    def __init__(self, url: str, app: Celery) -> None:
        self._app = app
        self._own = psycopg.connect(url, autocommit=True)
        self._own.execute(_BARE)
        self._empty = celery.Celery("empty", broker="memory://", backend=None)
        self._empty.conf.update(task_ignore_result=True)

        def numbered(number: int) -> None: ...

        self._task = app.task(name="numbered", shared=False)(numbered)
        self._nothing = self._empty.task(name="numbered", shared=False)(numbered)

    def close(self) -> None:
        self._own.close()
        self._empty.close()

    def ways(self) -> dict[str, Callable[[int], None]]:
        return {
            "SELECT 1": self._select,
            "bare INSERT of 1,100 bytes": lambda jobs: self._insert(jobs, 1100),
            "bare INSERT of 2,050 bytes": lambda jobs: self._insert(jobs, 2050),
            "Celery, memory transport": lambda jobs: _each(self._nothing.delay, jobs),
            "delay, nothing written": self._unwritten,
            "statement alone": self._statement,
            "delay": lambda jobs: _each(self._task.delay, jobs),
            "apply_async, tenant=": lambda jobs: _each(
                lambda number: self._task.apply_async((number,), tenant="acme"), jobs
            ),
            "delay, untracked": lambda jobs: _each(
                lambda number: self._task.apply_async((number,), track=False), jobs
            ),
            "inside a task": self._inside,
            "bulk": self._bulk,
            "bulk, untracked": self._bulk_untracked,
            "enqueue_many": self._enqueue_many,
            "group": lambda jobs: self._group(jobs),
        }

    def _select(self, jobs: int) -> None:
        for _ in range(jobs):
            self._own.execute("SELECT 1", prepare=True)

    def _insert(self, jobs: int, size: int) -> None:
        body = random.Random(size).randbytes(size // 2).hex()  # which TOAST does not make smaller
        for _ in range(jobs):
            self._own.execute("INSERT INTO public.bare (body) VALUES (%s)", [body], prepare=True)

    def _unwritten(self, jobs: int) -> None:
        """All of a send but the connection and the statement."""
        write, JobRecorder.record_plain = JobRecorder.record_plain, self._noted  # type: ignore[method-assign]
        try:
            _each(self._task.delay, jobs)
        finally:
            JobRecorder.record_plain = write  # type: ignore[method-assign]

    def _noted(self, job: PlainJob, parcel: Parcel) -> Recorded:
        self._former = job, parcel
        return Recorded(applied=True, status=JobStatus.QUEUED, attempt=0, outcome="created")

    def _statement(self, jobs: int) -> None:
        job, parcel = self._former
        with self._app.database.connection() as own:
            for _ in range(jobs):
                job_id = uuid4()
                ids = dict.fromkeys(("job_id", "root_id"), job_id) | dict.fromkeys(_TEXT_IDS, str(job_id))
                params = job.params | ids
                insert_plain(own, replace(job, params=params), parcel.last)

    def _inside(self, jobs: int) -> None:
        with running(self._task):
            _each(lambda number: self._task.apply_async((number,), add_to_parent=False), jobs)

    def _bulk(self, jobs: int) -> None:
        with self._app.bulk():
            _each(self._task.delay, jobs)

    def _bulk_untracked(self, jobs: int) -> None:
        with self._app.bulk():
            _each(lambda number: self._task.apply_async((number,), track=False), jobs)

    def _enqueue_many(self, jobs: int) -> None:
        rows = ({"args": [number]} for number in range(jobs))
        CeleryJobRunner(self._app).enqueue_many("numbered", rows)

    def _group(self, jobs: int) -> None:
        celery.group(self._task.si(number) for number in range(jobs)).apply_async()


def _each(send: Callable[[int], Any], jobs: int) -> None:
    for number in range(jobs):
        send(number)


@contextmanager
def running(task: Any) -> Iterator[None]:
    """As in a worker's process: this task is running."""
    task.push_request(id="0f8b5c6e-0000-4000-8000-000000000001", root_id="0f8b5c6e-0000-4000-8000-000000000002",
                      called_directly=False, delivery_info={})  # fmt: skip
    celery._state._task_stack.push(task)  # type: ignore[attr-defined]  # missing in the stubs
    try:
        yield
    finally:
        celery._state._task_stack.pop()  # type: ignore[attr-defined]  # missing in the stubs
        task.pop_request()


def measure(*, jobs: int, rounds: int, only: str = "") -> dict[str, tuple[float, float, float]]:
    """Give for each way the client's µs, the backend's µs and the bytes of log, per job."""
    with (
        TemporaryDirectory(prefix="jobbridge-send-") as name,
        run_postgres(Path(name) / "postgres", settings=_QUIET) as postgres,
    ):
        Path(name).chmod(0o755)
        with psycopg.connect(postgres.url(), autocommit=True) as connection:
            connection.execute(
                f"CREATE ROLE {_WATCHER} SUPERUSER LOGIN PASSWORD '{postgres.password}'".encode()
            )
        url, watcher_url = _make_database(postgres, "send")
        app = make_tracked(settings=load_settings({"DATABASE_URL": url, "JOB_RUNNER_TYPE": "celery"}))
        app.finalize()
        ways, meter = Ways(url, app), Meter(watcher_url)
        with psycopg.connect(watcher_url, autocommit=True) as watcher:
            found: dict[str, list[tuple[float, float, float]]] = {}
            for number in range(rounds + 1):
                for way, send in ways.ways().items():
                    if only and not any(each in way for each in only.split(",")):
                        continue
                    watcher.execute("TRUNCATE jobbridge_broker.messages, public.bare")
                    watcher.execute("TRUNCATE public.jobs, public.job_count_changes")
                    send(20)
                    told = _cost(send, jobs if number else 50, watcher, meter)
                    if number:
                        found.setdefault(way, []).append(told)
        ways.close()
        meter.close()
        _close(app)
    return {way: tuple(map(min, zip(*each, strict=True))) for way, each in found.items()}  # type: ignore[misc]


def _cost(
    send: Callable[[int], None], jobs: int, watcher: psycopg.Connection[Any], meter: Meter
) -> tuple[float, float, float]:
    before, log, client = _backends(watcher), meter.read().wal_bytes, time.process_time()
    send(jobs)
    client = time.process_time() - client
    backend = sum(spent - before.get(pid, 0) for pid, spent in _backends(watcher).items())
    return client * 1e6 / jobs, backend / 1e3 / jobs, (meter.read().wal_bytes - log) / jobs


def _backends(watcher: psycopg.Connection[Any]) -> dict[int, int]:
    pids = [pid for (pid,) in watcher.execute(_OURS)]
    return {pid: int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) for pid in pids}


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--jobs", type=int, default=300, help="how many in each round")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", default="", help="parts of the names of ways, with commas between")
    options = parser.parse_args()
    print("| | client | Postgres | log, bytes |\n|---|---|---|---|")
    for way, costs in measure(jobs=options.jobs, rounds=options.rounds, only=options.only).items():
        print("| " + " | ".join([way, *(f"{cost:,.0f}" for cost in costs)]) + " |")


if __name__ == "__main__":
    main()
