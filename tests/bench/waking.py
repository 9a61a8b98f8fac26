"""Jobs that sleep and wait while the database is away over their time: `python -m tests.bench.waking [--engine …]`.

Real jobs are suspended by real workers, half of them asleep, half waiting for an event with a time-out. Then nothing
happens for a while, in which worker and Postgres are measured; Postgres is stopped, their time passes, it is started
again. All of them go on, each once: a ledger outside of the database says so.

On Celery workers suspend `--real` of them, and the others are copies of all that those left in the tables, which is
what a sleeping job is there; their time is brought nearer when all are there, as the test kit's clock does. On Temporal
all are real, and their time is `--after` from the beginning: its timers cannot be brought nearer.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from contextlib import ExitStack
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psycopg

from jobbridge.broker.admin import rehearsal
from jobbridge.core.keys import Engine
from jobbridge.dev.postgres import run_postgres
from jobbridge.dev.process import ManagedProcess
from jobbridge.dev.temporal import run_temporal
from jobbridge.settings import load_settings
from jobbridge.store.schema.migrate import migrate
from jobbridge.testing.virtual_time import _JOBS_NEARER, bring_waits_nearer
from tests.bench.copies import copy_rows
from tests.bench.sleeping import idle_cost
from tests.bench.waking_apps import make_app
from tests.support import clean_environment, wait_until

SUSPENDED = """
SELECT count(*) FROM jobs WHERE status IN ('scheduled', 'waiting') AND attempt = 0 AND started_at IS NOT NULL
"""
OPEN = "SELECT count(*) FROM jobs WHERE completed_at IS NULL"
SUSPENDED_ONES = "(SELECT job_id FROM jobs WHERE status IN ('scheduled', 'waiting'))"
COPIED = {
    "job_details": f"own.job_id IN {SUSPENDED_ONES}",
    "job_waits": "true",
    "jobbridge_broker.messages": "own.due_at IS NOT NULL AND own.headers ->> 'task' IS NOT NULL",
    "jobs": f"own.job_id IN {SUSPENDED_ONES}",  # the last: the others ask it which are meant
}
#: Of those that have gone on: how long after Postgres was back.
LAGS = """
SELECT extract(epoch FROM completed_at - %s)::float FROM jobs WHERE completed_at IS NOT NULL ORDER BY completed_at
"""
#: Those whose time has not come yet stay where they are.
LATER = """
CREATE TEMPORARY TABLE later AS
SELECT job_id, task_id FROM jobs WHERE completed_at IS NULL ORDER BY md5(job_id::text) OFFSET {due};
UPDATE jobbridge_broker.messages SET due_at = due_at + interval '1 day'
WHERE correlation_id IN (SELECT task_id FROM later);
UPDATE jobs SET run_at = run_at + interval '1 day' WHERE job_id IN (SELECT job_id FROM later);
UPDATE job_waits SET until = until + interval '1 day' WHERE job_id IN (SELECT job_id FROM later);
UPDATE job_details SET metadata = metadata || jsonb_build_object(
    'until', (metadata ->> 'until')::timestamptz + interval '1 day'
)
WHERE job_id IN (SELECT job_id FROM later) AND metadata ? 'until'
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", type=Engine, default=Engine.CELERY)
    parser.add_argument("--jobs", type=int)
    parser.add_argument("--real", type=int, default=1000, help="on Celery: so many are suspended by workers")
    parser.add_argument("--due", type=int, help="on Celery: of so many the time comes; by default of all")
    parser.add_argument("--idle", type=float, default=60.0, help="seconds in which nothing happens")
    parser.add_argument("--away", type=float, default=20.0, help="seconds for which Postgres is away")
    parser.add_argument(
        "--after", type=float, default=420.0, help="on Temporal: when their time is, in seconds"
    )
    asked = parser.parse_args()
    jobs = asked.jobs or (50_000 if asked.engine is Engine.CELERY else 5_000)
    with TemporaryDirectory(prefix="jobbridge-waking-") as name, ExitStack() as opened:
        print(json.dumps(measure(asked, jobs, Path(name), opened)), flush=True)


def measure(asked: Any, jobs: int, folder: Path, opened: ExitStack) -> dict[str, Any]:
    folder.chmod(0o755)
    told: dict[str, Any] = {"engine": asked.engine.value, "jobs": jobs}
    first = ExitStack()
    server = first.enter_context(run_postgres(folder / "postgres"))
    opened.callback(first.close)
    url = server.create_database("waking")
    migrate(url)
    environment = {
        "DATABASE_URL": url,
        "JOB_RUNNER_TYPE": asked.engine.value,
        "LEDGER": str(folder / "ledger"),
    }
    module, arguments = "celery", ["worker", "-c", "2", "-l", "WARNING"]
    if asked.engine is Engine.TEMPORAL:
        temporal = opened.enter_context(run_temporal(log_path=folder / "temporal.log"))
        environment["TEMPORAL_ADDRESS"] = temporal.address
        module = "jobbridge.temporal.worker"
        arguments.remove("worker")
    app = make_app(settings=load_settings(environment))
    app.finalize()
    worker = ManagedProcess(
        name="worker",
        argv=[sys.executable, "-m", module, "-A", "tests.bench.waking_apps:app", *arguments],
        log_path=folder / "worker.log",
        env=clean_environment(environment),
    ).start()
    opened.callback(worker.kill)
    app.tasks["waits"].delay(datetime.now().astimezone().isoformat())
    wait_until(lambda: _one(url, OPEN) == 0, timeout=60)
    told["idle without them"] = idle_cost(worker, server, asked.idle)

    far = timedelta(days=1) if asked.engine is Engine.CELERY else timedelta(seconds=asked.after)
    at = datetime.now().astimezone() + far
    began = time.monotonic()
    due = asked.due or jobs
    real = min(asked.real, jobs) if asked.engine is Engine.CELERY else jobs
    with app.bulk():
        for number in range(real):
            app.tasks["waits" if number % 2 else "sleeps"].delay(at.isoformat())
    wait_until(lambda: _one(url, SUSPENDED) == real, timeout=3600, every=0.5)
    told["suspended per second"] = round(real / (time.monotonic() - began))
    if real < jobs:
        copy_rows(url, jobs // real - 1, COPIED)
    told["suspended"] = _one(url, SUSPENDED)
    told["idle with them"] = idle_cost(worker, server, asked.idle)

    if asked.engine is Engine.CELERY:
        at = _bring_nearer(url, at, due)
    app.database.close()
    app.close()
    first.close()
    time.sleep(max((at - datetime.now().astimezone()).total_seconds(), 0.0) + asked.away)
    back: datetime = datetime.now().astimezone()
    opened.enter_context(run_postgres(folder / "postgres", port=server.port))
    wait_until(lambda: _one(url, OPEN) == jobs - due, timeout=3600, every=0.5)
    with psycopg.connect(url) as connection:
        lags = [row[0] for row in connection.execute(LAGS, [back]).fetchall() if row[0] > 0]
    noted = Counter((folder / "ledger").read_text().split())
    ended = dict(_rows(url, "SELECT status, count(*) FROM jobs GROUP BY 1"))
    return told | {
        "Postgres was away over their time by s": asked.away,
        "went on": len(noted) - 1,
        "more than once": sum(1 for times in noted.values() if times > 1),
        "ended": ended,
        "the first had run after s": round(lags[0], 2),
        "half of them after s": round(lags[len(lags) // 2], 1),
        "all of them after s": round(lags[-1], 1),
    }


def _bring_nearer(url: str, at: datetime, due: int) -> datetime:
    """Have so many be due in a few seconds; gives when."""
    with psycopg.connect(url) as connection:
        by = at - datetime.now().astimezone() - timedelta(seconds=20)
        rehearsal.bring_nearer(connection, by)
        connection.execute(_JOBS_NEARER, {"by": by})
        bring_waits_nearer(connection, by)
        connection.execute(LATER.format(due=due).encode())
    return at - by


def _rows(url: str, statement: str) -> list[Any]:
    with psycopg.connect(url, autocommit=True) as connection:
        return connection.execute(statement.encode()).fetchall()


def _one(url: str, statement: str) -> Any:
    return _rows(url, statement)[0][0]


if __name__ == "__main__":
    main()
