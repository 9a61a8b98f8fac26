"""What a job costs in the database: `python -m tests.bench.budget [--json] [--jobs 1000]`.

Counts, so that they are the same on every machine: statements, commits, flushes of the log to disk and bytes of
write-ahead log, per job that does nothing; and what an idle worker asks. On servers of its own, with Postgres as
durable as in production.

- A statement is what a client has Postgres execute: BEGIN, COMMIT and SAVEPOINT count (`pg_stat_statements`).
- A commit is one that wrote (`pg_walinspect`); a flush is one that somebody waited for (`pg_stat_io`).
- Bytes are those of the log's records without images of whole pages: how many of these there are says when the last
  checkpoint was, not what was done.
- Of a worker's work, what it does while it is idle is left out (but for its flushes).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg

from jobbridge.app.urls import broker_url_for
from jobbridge.broker.tables import messages
from jobbridge.core.keys import Engine
from jobbridge.dev.postgres import USER, PostgresServer, run_postgres
from jobbridge.dev.process import ManagedProcess
from jobbridge.dev.temporal import run_temporal
from jobbridge.settings import load_settings
from jobbridge.store.schema.migrate import migrate
from tests.bench.budget_apps import MEASURED, WARM, make_plain, make_tracked
from tests.support import clean_environment, wait_until

#: Tracked jobs of either engine, and messages of plain Celery, which have no rows.
KINDS = ("celery", "plain", "temporal")

#: Nothing but the jobs writes: no vacuum, no checkpoint.
_QUIET = {
    "shared_preload_libraries": "pg_stat_statements",
    "autovacuum": "off",
    "checkpoint_timeout": "1d",
    "max_wal_size": "8GB",
}
_WARM_UP = 20  # jobs; after five executions a statement is prepared, and the tables' pages are there
#: Seconds. A session tells of its flushes when it ends, or 10 s after its last statement.
_SHORTEST_IDLE = 12.0
_WORKER = "budget@here"
_WATCHER = "watcher"  # the account that counts, and is not counted


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What was done so far, or in a phase, or for one job."""

    statements: float
    commits: float
    flushes: float
    wal_bytes: float

    def __sub__(self, other: Cost) -> Cost:
        return self._with(other, lambda mine, others: mine - others)

    def times(self, factor: float) -> Cost:
        return self._with(self, lambda mine, _: mine * factor)

    def least(self, other: Cost) -> Cost:
        return self._with(other, min)

    def is_within(self, most: Cost) -> bool:
        return all(number <= getattr(most, name) for name, number in asdict(self).items())

    def _with(self, other: Cost, operation: Callable[[float, float], float]) -> Cost:
        return Cost(**{name: operation(mine, getattr(other, name)) for name, mine in asdict(self).items()})


@dataclass(frozen=True, kw_only=True)
class Budget:
    """The answer: cost of one job by phase, and of one worker's idle minute by its kind."""

    per_job: dict[str, Cost]
    idle_minute: dict[str, Cost]


class Meter:
    """Reads the counters of one database, from a session that they leave out."""

    def __init__(self, url: str) -> None:
        self._connection = psycopg.connect(url, autocommit=True)
        self._start = self._one("SELECT pg_current_wal_insert_lsn()")

    def close(self) -> None:
        self._connection.close()

    def read(self) -> Cost:
        # A record that is on disk when this returns, and so is all that others wrote before.
        end = self._one("SELECT pg_logical_emit_message(false, 'meter', '', true)")
        wal_bytes, commits = self._row(
            """
            SELECT sum(record_size), coalesce(sum(count) FILTER (
                WHERE "resource_manager/record_type" = 'Transaction/COMMIT'), 0)
            FROM pg_get_wal_stats(%s, %s, per_record => true)
            """,
            self._start, end,
        )  # fmt: skip
        statements = self._one(
            "SELECT coalesce(sum(calls), 0) FROM pg_stat_statements WHERE userid = %s::regrole", USER
        )
        flushes = self._one(
            "SELECT sum(fsyncs) FROM pg_stat_io WHERE backend_type = 'client backend' AND object = 'wal'"
        )
        return Cost(
            statements=float(statements), commits=float(commits), flushes=float(flushes or 0),
            wal_bytes=float(wal_bytes),
        )  # fmt: skip

    def wait_until_done(self) -> None:
        """Wait until no message is left, and every job has ended."""
        wait_until(
            lambda: self._one(
                f"""
                SELECT NOT EXISTS (SELECT FROM {messages.fullname})
                    AND NOT EXISTS (SELECT FROM public.jobs WHERE completed_at IS NULL)
                """
            ),
            timeout=600,
            every=0.1,
            message="all jobs are done",
        )

    def wait_until_settled(self) -> None:
        """Wait until each service has had its first turn: what a start costs is another matter."""
        wait_until(
            lambda: self._one(
                """
                SELECT coalesce(
                    bool_and(last_finished >= last_started)
                        AND max(last_started) < clock_timestamp() - interval '2 seconds',
                    false
                )
                FROM public.job_services
                """
            ),
            timeout=60,
            every=0.1,
            message="all services have run",
        )

    def end_sessions(self) -> None:
        """End what others have open, and wait until they are gone: now the server knows of all their flushes."""
        self._one("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = %s", USER)
        wait_until(
            lambda: not self._one("SELECT count(*) FROM pg_stat_activity WHERE usename = %s", USER),
            message="the sessions of others have ended",
        )

    def _one(self, statement: str, *values: object) -> Any:
        return self._row(statement, *values)[0]

    def _row(self, statement: str, *values: object) -> Any:
        return self._connection.execute(statement.encode(), values or None).fetchone()


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Where a phase is measured: an empty database, and Temporal."""

    url: str
    watcher_url: str
    temporal: str
    folder: Path
    meter: Meter

    def settings(self, engine: Engine) -> dict[str, str]:
        return {
            "DATABASE_URL": self.url,
            "JOB_RUNNER_TYPE": engine.value,
            "TEMPORAL_ADDRESS": self.temporal,
            "TEMPORAL_JOB_TASK_QUEUE": urlsplit(self.url).path.strip("/"),
        }

    def app(self, kind: str) -> Any:
        if kind == "plain":
            return make_plain(broker_url_for(self.url))
        app = make_tracked(settings=load_settings(self.settings(_engine(kind))))
        app.finalize()
        return app

    def controller(self) -> Any:
        """Give an app for remote control, whose statements do not count."""
        return make_plain(broker_url_for(self.watcher_url))

    @contextmanager
    def worker(self, kind: str) -> Iterator[None]:
        if kind == "temporal":
            arguments = ["-m", "jobbridge.temporal.worker", "-A", "tests.bench.budget_apps:tracked"]
        else:
            name = "plain" if kind == "plain" else "tracked"
            arguments = ["-m", "celery", "-A", f"tests.bench.budget_apps:{name}", "worker"]
        process = ManagedProcess(
            name=f"{kind} worker",
            argv=[sys.executable, *arguments, "-c", "2", "-Q", WARM, "-n", _WORKER, "-l", "INFO"],
            log_path=self.folder / f"{kind}.log",
            env=clean_environment(
                {**self.settings(_engine(kind)), "BUDGET_BROKER": broker_url_for(self.url)}
            ),
        ).start()
        try:
            wait_until(lambda: "ready." in process.log() or not process.is_running, timeout=60)
            assert process.is_running, process.log()
            yield
        finally:
            process.kill()


def measure(*, jobs: int, idle: float, kinds: Sequence[str] = KINDS) -> Budget:
    """Measure it on servers of its own.

    Args:
        jobs: How many of each kind.
        idle: Seconds that each worker is watched while it has nothing to do.
        kinds: Of KINDS.
    """
    per_job: dict[str, Cost] = {}
    idle_minute: dict[str, Cost] = {}
    with _servers() as open_stage:
        for kind in kinds:
            with open_stage(f"{kind}_sent") as stage:
                sent = publish(stage, kind, jobs)
            with open_stage(f"{kind}_run") as stage:
                idle_minute[kind], ran = run(stage, kind, jobs, max(idle, _SHORTEST_IDLE))
            per_job[f"send {kind}"] = sent
            per_job[f"run {kind}"] = ran - sent if kind == "temporal" else ran
    return Budget(per_job=per_job, idle_minute=idle_minute)


def publish(stage: Stage, kind: str, jobs: int) -> Cost:
    """Give the cost of sending one job, by one process that sends one after another."""
    app = stage.app(kind)
    cold = stage.meter.read()
    _send(app, WARM, _WARM_UP)
    before = stage.meter.read()
    _send(app, MEASURED, jobs)
    after = stage.meter.read()
    _close(app)
    stage.meter.end_sessions()
    # Of the flushes in between, the server knows only now.
    flushes = (stage.meter.read() - cold).times(1 / (jobs + _WARM_UP)).flushes
    return replace((after - before).times(1 / jobs), flushes=flushes)


def run(stage: Stage, kind: str, jobs: int, idle: float) -> tuple[Cost, Cost]:
    """Give the cost of an idle minute of a worker, and that of one job that it runs.

    Celery's messages are all there when it begins; Temporal's jobs are sent meanwhile, so theirs include the sending.
    """
    app = stage.app(kind)
    with stage.worker(kind):
        _send(app, WARM, _WARM_UP)
        stage.meter.wait_until_done()
        if kind != "temporal":
            _send(app, MEASURED, jobs)
            _close(app)
        if kind != "plain":
            stage.meter.wait_until_settled()
        per_second = _idle(stage.meter, idle)
        before, began = stage.meter.read(), time.monotonic()
        if kind == "temporal":
            _send(app, WARM, jobs)
        else:
            control = stage.controller().control
            control.add_consumer(MEASURED, destination=[_WORKER], reply=True, timeout=10)
        stage.meter.wait_until_done()
        after, took = stage.meter.read(), time.monotonic() - began
    _close(app)
    stage.meter.end_sessions()
    cost = replace(after, flushes=stage.meter.read().flushes) - before - per_second.times(took)
    return per_second.times(60), cost.times(1 / jobs)


def _idle(meter: Meter, seconds: float) -> Cost:
    """Give what is done each second while nobody sends anything."""
    before, began = meter.read(), time.monotonic()
    time.sleep(seconds)  # what is measured, not waited for
    # Not the flushes: these are of before, too (see _SHORTEST_IDLE).
    return replace((meter.read() - before).times(1 / (time.monotonic() - began)), flushes=0)


def _engine(kind: str) -> Engine:
    return Engine.TEMPORAL if kind == "temporal" else Engine.CELERY


def _send(app: Any, queue: str, jobs: int) -> None:
    task = app.tasks["nothing"]
    for _ in range(jobs):
        task.apply_async(queue=queue)


def _close(app: Any) -> None:
    if database := app.__dict__.get("database"):
        database.close()
    app.close()


@contextmanager
def _servers() -> Iterator[Callable[[str], Any]]:
    with (
        TemporaryDirectory(prefix="jobbridge-budget-") as name,
        run_postgres(Path(name) / "postgres", settings=_QUIET) as postgres,
        run_temporal(log_path=Path(name) / "temporal.log") as temporal,
    ):
        Path(name).chmod(0o755)
        with psycopg.connect(postgres.url(), autocommit=True) as connection:
            connection.execute(
                f"CREATE ROLE {_WATCHER} SUPERUSER LOGIN PASSWORD '{postgres.password}'".encode()
            )

        @contextmanager
        def open_stage(database: str) -> Iterator[Stage]:
            url, watcher_url = _make_database(postgres, f"budget_{database}")
            meter = Meter(watcher_url)
            try:
                yield Stage(
                    url=url,
                    watcher_url=watcher_url,
                    temporal=temporal.address,
                    folder=Path(name),
                    meter=meter,
                )
            finally:
                meter.close()

        yield open_stage


def _make_database(postgres: PostgresServer, name: str) -> tuple[str, str]:
    url = postgres.create_database(name)
    migrate(url)
    parts = urlsplit(url)
    watcher_url = urlunsplit(parts._replace(netloc=parts.netloc.replace(USER, _WATCHER, 1)))
    with psycopg.connect(watcher_url, autocommit=True) as connection:
        connection.execute("CREATE EXTENSION pg_stat_statements")
        connection.execute("CREATE EXTENSION pg_walinspect")
    return url, watcher_url


# -- telling


_LABELS = {
    "send celery": "send, CE",
    "send plain": "send, plain Celery on the broker",
    "send temporal": "send, EE",
    "run celery": "take, run and acknowledge, CE",
    "run plain": "take, run and acknowledge, plain Celery",
    "run temporal": "run, EE (with the worker's relay)",
    "celery": "`celery worker -c 2`",
    "plain": "`celery worker -c 2`, plain Celery",
    "temporal": "`jobbridge temporal-worker -c 2`",
}


def table(budget: Budget) -> str:
    """Tell it as the two tables of docs/development.md."""
    lines = ["| per job | statements | commits | flushes | bytes of WAL |", "|---|---|---|---|---|"]
    for name, cost in budget.per_job.items():
        numbers = f"{cost.statements:.2f} | {cost.commits:.2f} | {cost.flushes:.2f} | {cost.wal_bytes:,.0f}"
        lines.append(f"| {_LABELS[name]} | {numbers} |")
    lines += ["", "| idle, per minute | statements | commits | bytes of WAL |", "|---|---|---|---|"]
    for name, cost in budget.idle_minute.items():
        lines.append(
            f"| {_LABELS[name]} | {cost.statements:.0f} | {cost.commits:.0f} | {cost.wal_bytes:,.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON")
    parser.add_argument("--jobs", type=int, default=1000, help="how many of each kind")
    parser.add_argument(
        "--idle", type=float, default=60.0, help="seconds for which an idle worker is watched"
    )
    options = parser.parse_args()
    budget = measure(jobs=options.jobs, idle=options.idle)
    print(json.dumps(asdict(budget), indent=2) if options.json else table(budget))


if __name__ == "__main__":
    main()
