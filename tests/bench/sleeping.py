"""What jobs that sleep and wait cost a worker: `python -m tests.bench.sleeping [--jobs 50000] [--idle 60]`.

Processor time of the worker and of its Postgres while nothing happens, without such jobs and with so many: half of them
sleep, half wait for an event for ever, as suspended jobs leave them. Then events are sent to some of the latter.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psycopg

from jobbridge.core.keys import Engine
from jobbridge.dev.postgres import PostgresServer, run_postgres
from jobbridge.dev.process import ManagedProcess
from jobbridge.settings import load_settings
from jobbridge.store.schema.migrate import migrate
from tests.bench.budget_apps import make_tracked
from tests.support import children_of, clean_environment, wait_until

#: Of every second job the row, the message and the wait become those of one that waits for an event.
_WAIT = """
WITH waiting AS (
    UPDATE jobs SET status = 'waiting', run_at = NULL, attempt = 0, started_at = now()
    WHERE status = 'scheduled' AND right(job_id::text, 1) < '8'
    RETURNING tenant, job_id, task_id
), held AS (
    UPDATE jobbridge_broker.messages AS message SET due_at = 'infinity'
    FROM waiting WHERE message.correlation_id = waiting.task_id
), steps AS (
    INSERT INTO job_details (tenant, job_id, step_name, status, retry_count, metadata)
    SELECT tenant, job_id, 'approval', 'waiting', 1, '{"durable": "event", "call": "event:approval#1"}' FROM waiting
    RETURNING tenant, job_id, detail_id
)
INSERT INTO job_waits (tenant, job_id, kind, name, step)
SELECT tenant, job_id, 'event', 'approval', detail_id FROM steps
"""


def _cpu(*pids: int) -> float:
    """Give the processor time that these processes have had, with what their ended children had; seconds."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def _postmaster(server: PostgresServer) -> int:
    with psycopg.connect(server.url(), autocommit=True) as connection:
        row = connection.execute("SELECT pg_read_file('postmaster.pid')").fetchone()
    assert row is not None
    return int(str(row[0]).splitlines()[0])


def idle_cost(worker: ManagedProcess, server: PostgresServer, seconds: float) -> tuple[float, float]:
    """Give the processor time of worker and Postgres in a time in which nothing happens; seconds a minute."""
    main = _postmaster(server)
    workers, servers = [worker.pid, *children_of(worker.pid)], [main, *children_of(main)]
    before = _cpu(*workers), _cpu(*servers)
    time.sleep(seconds)
    after = _cpu(*workers), _cpu(*(pid for pid in servers if Path(f"/proc/{pid}").exists()))
    return tuple((late - early) * 60 / seconds for early, late in zip(before, after, strict=True))  # type: ignore[return-value]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=50_000)
    parser.add_argument("--idle", type=float, default=60.0)
    parser.add_argument("--events", type=int, default=200)
    asked = parser.parse_args()
    with TemporaryDirectory() as name, run_postgres(Path(name) / "postgres", is_durable=False) as server:
        url = server.create_database("sleeping")
        migrate(url)
        environment = {"DATABASE_URL": url, "JOB_RUNNER_TYPE": Engine.CELERY.value}
        app = make_tracked(settings=load_settings(environment))
        worker = ManagedProcess(
            name="worker",
            argv=[
                sys.executable,
                "-m",
                "celery",
                "-A",
                "tests.bench.budget_apps:tracked",
                "worker",
                "-c",
                "2",
                "-l",
                "INFO",
            ],
            log_path=Path(name) / "worker.log",
            env=clean_environment(environment),
        ).start()
        try:
            wait_until(lambda: "ready." in worker.log(), timeout=60)
            _report("without", idle_cost(worker, server, asked.idle))
            _make(app, asked.jobs, url)
            _report(f"with {asked.jobs:,}", idle_cost(worker, server, asked.idle))
            _wake(app, url, asked.events)
        finally:
            worker.kill()
            app.close()


def _report(what: str, cpu: tuple[float, float]) -> None:
    print(f"{what}: worker {cpu[0]:.2f} s, Postgres {cpu[1]:.2f} s of processor time a minute", flush=True)


def _make(app: Any, jobs: int, url: str) -> None:
    app.finalize()
    task = app.tasks["nothing"]
    with app.bulk():
        for _ in range(jobs):
            task.apply_async(countdown=86_400)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(_WAIT)
        connection.execute("VACUUM ANALYZE")
        told = connection.execute("SELECT status, count(*) FROM jobs GROUP BY 1 ORDER BY 1").fetchall()
    print(dict(told), flush=True)


def _wake(app: Any, url: str, events: int) -> None:
    """Send events, and say how long until the jobs had run."""
    with psycopg.connect(url, autocommit=True) as connection:
        waiting = [row[0] for row in connection.execute("SELECT job_id FROM job_waits LIMIT %s", [events])]
        taken = []
        for job_id in waiting:
            sent_at = time.monotonic()
            app.send_event("approval", None, job_id=job_id)
            taken.append(time.monotonic() - sent_at)
        ended = "SELECT count(*) FROM jobs WHERE job_id = ANY(%s) AND completed_at IS NOT NULL"
        began = time.monotonic()
        wait_until(lambda: connection.execute(ended, [waiting]).fetchone() == (len(waiting),), timeout=60)
    print(
        f"{events} events: {sorted(taken)[events // 2] * 1000:.1f} ms each to send, "
        f"all jobs had run {time.monotonic() - began:.2f} s after the last",
        flush=True,
    )


if __name__ == "__main__":
    main()
