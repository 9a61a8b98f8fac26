"""What rules across the fleet hold, and what they cost: `python -m tests.bench.rules limit|rate|fair [--engine …]`.

Real workers on servers of its own. The rows' own times say what happened, by the database's clock.

- `limit`: so many jobs under a limit of 3, on 8 processes of 4 workers of which one is killed every few seconds.
- `rate`: so many jobs at 100 a second, on 4 workers.
- `fair`: 100 tenants on one queue, of which one has 100,000 jobs waiting; how long the others wait, beside alone.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psycopg

import jobbridge
from jobbridge.core.keys import Engine
from jobbridge.core.rules.limits import concurrency_rules
from jobbridge.dev.postgres import run_postgres
from jobbridge.dev.process import ManagedProcess
from jobbridge.dev.temporal import run_temporal
from jobbridge.settings import load_settings
from jobbridge.store.rules.fleet import RuleStore
from jobbridge.store.schema.migrate import migrate
from tests.bench.rules_apps import make_app
from tests.support import clean_environment, wait_until

LIMIT, RATE = 3, 100

#: How many ran at the same time, at most: where one ends and another begins at the same instant, the end counts first.
OVERLAP = """
SELECT coalesce(max(running), 0) FROM (
    SELECT sum(step) OVER (ORDER BY at, step ROWS UNBOUNDED PRECEDING) AS running
    FROM (
        SELECT started_at AS at, 1 AS step FROM jobs WHERE type = %(type)s AND started_at IS NOT NULL
        UNION ALL
        SELECT completed_at, -1 FROM jobs WHERE type = %(type)s AND started_at IS NOT NULL AND completed_at IS NOT NULL
    ) AS steps
) AS counted
"""


@dataclass
class Fleet:
    """Servers, an app, and workers that can be killed."""

    app: Any
    url: str
    engine: Engine
    environment: dict[str, str]
    folder: Path
    workers: list[ManagedProcess] = field(default_factory=list)
    started: int = 0

    def start(self, processes: int = 2) -> None:
        self.started += 1
        module = "jobbridge.temporal.worker" if self.engine is Engine.TEMPORAL else "celery"
        arguments = ["-m", module, "-A", "tests.bench.rules_apps:app"]
        if self.engine is Engine.CELERY:
            arguments.append("worker")
        name = f"w{self.started}"
        self.workers.append(
            ManagedProcess(
                name=name,
                argv=[
                    sys.executable,
                    *arguments,
                    "-c",
                    str(processes),
                    "-n",
                    f"{name}@bench",
                    "-l",
                    "WARNING",
                ],
                log_path=self.folder / f"{name}.log",
                env=clean_environment(self.environment),
            ).start()
        )

    def send(self, name: str, jobs: int) -> None:
        """Send so many jobs, 500 in a transaction."""
        with psycopg.connect(self.url) as connection:
            for begin in range(0, jobs, 500):
                with self.app.enqueue_on(connection):
                    for _ in range(begin, min(begin + 500, jobs)):
                        self.app.tasks[name].delay()
                connection.commit()

    def kill_one(self, chance: random.Random) -> None:
        self.workers.pop(chance.randrange(len(self.workers))).kill()

    def one(self, statement: str, **values: object) -> Any:
        with psycopg.connect(self.url, autocommit=True) as connection:
            row = connection.execute(statement.encode(), values or None).fetchone()
        assert row is not None
        return row[0]

    def left(self) -> int:
        return int(self.one("SELECT count(*) FROM jobs WHERE completed_at IS NULL"))


@contextmanager
def fleet(engine: Engine) -> Iterator[Fleet]:
    with TemporaryDirectory(prefix="jobbridge-rules-") as name, ExitStack() as servers:
        folder = Path(name)
        postgres = servers.enter_context(run_postgres(folder / "postgres"))
        folder.chmod(0o755)
        url = postgres.create_database("rules")
        migrate(url)
        environment = {"DATABASE_URL": url, "JOB_RUNNER_TYPE": engine.value}
        if engine is Engine.TEMPORAL:
            temporal = servers.enter_context(run_temporal(log_path=folder / "temporal.log"))
            environment |= {"TEMPORAL_ADDRESS": temporal.address}
        app = make_app(settings=load_settings(environment))
        app.finalize()
        made = Fleet(app=app, url=url, engine=engine, environment=environment, folder=folder)
        try:
            yield made
        finally:
            for worker in made.workers:
                worker.kill()
            app.database.close()
            app.close()


def limit(engine: Engine, jobs: int, seed: int) -> dict[str, Any]:
    chance = random.Random(seed)
    with fleet(engine) as made:
        for _ in range(4):
            made.start()
        began = time.monotonic()
        made.send("limited", jobs)
        sent = time.monotonic() - began
        kills = 0
        while made.left():
            time.sleep(3)  # between two kills
            if not made.left():
                break
            made.kill_one(chance)
            made.start()
            kills += 1
        took = time.monotonic() - began
        return {
            "jobs": jobs,
            "kills": kills,
            "most at once": int(made.one(OVERLAP, type="limited")),
            "completed": int(made.one("SELECT count(*) FROM jobs WHERE status = 'completed'")),
            "sent per second": round(jobs / sent),
            "done per second": round(jobs / took),
        }


def rate(engine: Engine, jobs: int) -> dict[str, Any]:
    with fleet(engine) as made:
        for _ in range(4):
            made.start()
        made.app.tasks["taken"].delay(0)
        wait_until(lambda: made.left() == 0, timeout=60)
        made.send("paced", jobs)
        wait_until(lambda: made.left() == 0, timeout=jobs / RATE + 60)
        seconds = made.one(
            "SELECT extract(epoch FROM max(started_at) - min(started_at))::float FROM jobs WHERE type = 'paced'"
        )
        in_a_second = made.one(
            """
            SELECT max(number) FROM (
                SELECT count(*) AS number FROM jobs WHERE type = 'paced' GROUP BY floor(extract(epoch FROM started_at))
            ) AS counted
            """
        )
        return {
            "jobs": jobs,
            "per second": round((jobs - 1) / seconds, 2),
            "most in a second": int(in_a_second),
        }


def fair(engine: Engine, jobs: int) -> dict[str, Any]:
    waits = {}
    for name, waiting in (("alone", 0), ("beside", jobs)):
        with fleet(engine) as made:
            (rule,) = concurrency_rules({"limit": 8, "per": "queue", "fair": True})
            RuleStore(made.app.database).set(rule, "celery", weights={"tenant-1": 2})
            task = made.app.tasks["taken"]
            if waiting:
                with jobbridge.bulk(app=made.app):
                    for _ in range(waiting):
                        task.apply_async([0.01], tenant="large")
            for _ in range(2):
                made.start(4)
            for turn in range(10):
                for number in range(99):
                    task.apply_async([0.01], tenant=f"tenant-{number}")
                if turn % 2:
                    time.sleep(1)  # they come over time
            others = "SELECT count(*) FROM jobs WHERE completed_at IS NULL AND tenant <> 'large'"
            wait_until(lambda made=made, others=others: made.one(others) == 0, timeout=600, every=0.2)
            with psycopg.connect(made.url) as connection:
                rows = connection.execute(
                    "SELECT extract(epoch FROM started_at - created_at)::float FROM jobs WHERE tenant <> 'large'"
                ).fetchall()
            waits[name] = statistics.median(row[0] for row in rows)
    return {
        "waiting": jobs,
        "median alone ms": round(1000 * waits["alone"]),
        "median beside ms": round(1000 * waits["beside"]),
        "times": round(waits["beside"] / waits["alone"], 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["limit", "rate", "fair"])
    parser.add_argument("--engine", type=Engine, default=Engine.CELERY)
    parser.add_argument("--jobs", type=int)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    if given.what == "limit":
        print(json.dumps(limit(given.engine, given.jobs or 50_000, given.seed)))
    elif given.what == "rate":
        print(json.dumps(rate(given.engine, given.jobs or 3_000)))
    else:
        print(json.dumps(fair(given.engine, given.jobs or 100_000)))


if __name__ == "__main__":
    main()
