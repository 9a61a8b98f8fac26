"""What an installation costs with very many jobs that wait: `python -m tests.bench.scale [--jobs 10000000]`.

Rows and messages are copies of one that was sent, in the real tables. Then jobs are sent, drained and asked for, and
some are made old and go by the pruner; all that in whole tables first, then in partitions of a week. Prints one JSON
object a line.

Not part of `make bench`: it takes half an hour and some 25 GB of disk.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psycopg
from psycopg import sql
from starlette.testclient import TestClient

from jobbridge.broker.consume import claiming
from jobbridge.broker.session import SETTINGS
from jobbridge.core.access import Role
from jobbridge.core.keys import Engine, JobKey, TenantId
from jobbridge.core.status import JobStatus
from jobbridge.dashboard.application import make_dashboard
from jobbridge.dev.postgres import run_postgres
from jobbridge.dev.process import ManagedProcess
from jobbridge.diagnosis import queues
from jobbridge.diagnosis.checks import check_all
from jobbridge.diagnosis.explain import explain
from jobbridge.maintenance.pruner import Pruner
from jobbridge.settings import load_settings
from jobbridge.store.access.tokens import AccessStore
from jobbridge.store.counts.counts import CountStore
from jobbridge.store.counts.recount import recount
from jobbridge.store.schema import migrate as migrations
from jobbridge.store.schema.partition import partition
from tests.bench.budget_apps import make_tracked
from tests.support import clean_environment, wait_until

SERVER = {
    "shared_buffers": "2GB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "15min",
    "maintenance_work_mem": "512MB",
}
PORTION = 100_000
#: Jobs are made over so long a time, the last one now.
SPAN = timedelta(days=70)
RETENTION_DAYS = 30

Connection = psycopg.Connection[Any]


class Report:
    """Prints figures as they are had."""

    def __init__(self, url: str) -> None:
        self._connection = psycopg.connect(url, autocommit=True)

    def say(self, what: str, **figures: Any) -> None:
        print(json.dumps({"what": what, **figures}), flush=True)

    def wal(self) -> int:
        """Give the bytes of log that were ever written."""
        row = self._connection.execute("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn").fetchone()
        assert row is not None
        return int(row[0])

    @contextmanager
    def measured(self, what: str, figures: dict[str, Any]) -> Iterator[None]:
        """Say how long the block took and what log it wrote, by what it puts into `figures` as `jobs`."""
        before, began = self.wal(), time.perf_counter()
        yield
        seconds, written = time.perf_counter() - began, self.wal() - before
        jobs = max(1, figures.get("jobs", 1))
        self.say(
            what,
            **figures,
            seconds=round(seconds, 2),
            per_second=round(jobs / seconds),
            wal_per_job=round(written / jobs),
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=10_000_000)
    parser.add_argument("--tenants", type=int, default=1_000)
    parser.add_argument("--old", type=int, default=200_000, help="Jobs that are deleted one by one.")
    parser.add_argument("--seconds", type=float, default=60.0, help="Of draining.")
    parser.add_argument("--sent", type=int, default=5_000)
    parser.add_argument("--folder", type=Path, help="On the disk that is to be measured.")
    asked = parser.parse_args()
    with (
        TemporaryDirectory(dir=asked.folder) as name,
        run_postgres(Path(name) / "postgres", settings=SERVER) as server,
    ):
        url = server.create_database("scale")
        migrations.migrate(url)
        try_all(asked, url, Path(name))


def try_layout(
    app: Any,
    report: Report,
    url: str,
    environment: Mapping[str, str],
    folder: Path,
    asked: argparse.Namespace,
) -> None:
    sizes(report, url, "sizes with all that waits")
    send(app, report, asked.sent, "sent with all that waits")
    claim(report, url)
    look(app, report, environment)
    drain(app, report, environment, folder, asked.seconds)


def try_all(asked: argparse.Namespace, url: str, folder: Path) -> None:
    environment = {
        "DATABASE_URL": url,
        "JOB_RUNNER_TYPE": "celery",
        "JOB_RUNNER_RETENTION_COMPLETED_DAYS": str(RETENTION_DAYS),
    }
    app = make_tracked(settings=load_settings(environment))
    app.finalize()
    report = Report(url)
    try:
        send(app, report, asked.sent, "sent to empty tables")
        fill(report, url, asked.jobs, asked.tenants)
        report.say("whole tables")
        try_layout(app, report, url, environment, folder, asked)
        age(report, url, asked.old / asked.jobs * SPAN)
        prune(app, report, url)
        figures = {"jobs": asked.jobs}
        with report.measured("put into partitions", figures):
            report.say("partitions", names=partition(url, "week", also_if_many=True))
        try_layout(app, report, url, environment, folder, asked)
        age(report, url, timedelta(days=10))
        prune(app, report, url)
        sizes(report, url, "sizes at the end")
    finally:
        app.close()


# -- what waits


def send(app: Any, report: Report, number: int, what: str) -> None:
    task, figures = app.tasks["nothing"], {"jobs": number}
    task.delay()
    with report.measured(what, figures):
        for _ in range(number):
            task.delay()
    figures = {"jobs": number}
    with report.measured(f"{what}, in bulk", figures), app.bulk():
        for _ in range(number):
            task.delay()


_JOB = {
    "tenant": "'tenant-' || (n %% %(tenants)s)",
    "job_id": "new_id",
    "task_id": "new_id::text",
    "external_id": "new_id::text",
    "root_id": "new_id",
    "delivery": "new_id",
    "created_at": "at",
    "updated_at": "at",
}
_MESSAGE = {
    "correlation_id": "new_id::text",
    "published_at": "at",
    "headers": "replace(replace(template.headers::text, template.correlation_id, new_id::text),"
    " known.delivery::text, new_id::text)::json",
    "properties": "replace(template.properties::text, template.correlation_id, new_id::text)::json",
}
#: The id has the time in it, as those have that are sent (RFC 9562, version 7).
_NUMBERS = """
    SELECT n, at, (lpad(to_hex((1000 * extract(epoch FROM at))::bigint), 12, '0') || '7'
        || substr(md5(n::text), 1, 3) || '8' || substr(md5(n::text), 4, 15))::uuid AS new_id
    FROM (
        SELECT n, now() - (%(all)s - n) * (%(span)s::interval / %(all)s) AS at
        FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS n
    ) AS times
"""


def _copy(connection: Connection, table: str, changed: Mapping[str, str], source: str) -> sql.Composed:
    """Write the statement that makes rows as those of `source`, but for what is changed."""
    schema, name = table.split(".")
    columns = [
        column
        for (column,) in connection.execute(
            "SELECT column_name FROM information_schema.columns WHERE table_schema = %s AND table_name = %s"
            " AND NOT (is_identity = 'YES' AND identity_generation = 'ALWAYS') ORDER BY ordinal_position",
            [schema, name],
        )
    ]
    values = [
        sql.SQL(changed[column]) if column in changed else sql.Identifier("template", column)  # type: ignore[arg-type]
        for column in columns
    ]
    return sql.SQL(
        "INSERT INTO {table} ({columns}) SELECT {values} FROM ({numbers}) AS numbers, {source}"
    ).format(
        table=sql.Identifier(schema, name),
        columns=sql.SQL(", ").join(map(sql.Identifier, columns)),
        values=sql.SQL(", ").join(values),
        numbers=sql.SQL(_NUMBERS),
        source=sql.SQL(source),  # type: ignore[arg-type]
    )


def fill(report: Report, url: str, jobs: int, tenants: int) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE one_job AS SELECT * FROM jobs LIMIT 1")
        connection.execute(
            "CREATE TABLE one_message AS SELECT * FROM jobbridge_broker.messages"
            " WHERE correlation_id = (SELECT task_id FROM one_job)"
        )
        connection.execute("DELETE FROM jobbridge_broker.messages")
        connection.execute("DELETE FROM jobs")
        statements = (
            _copy(connection, "public.jobs", _JOB, "one_job AS template"),
            _copy(
                connection, "jobbridge_broker.messages", _MESSAGE, "one_message AS template, one_job AS known"
            ),
        )

    durable = "ALTER SYSTEM SET fsync = {}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(sql.SQL(durable).format(sql.SQL("off")))
        connection.execute("SELECT pg_reload_conf()")
        defined = connection.execute(_MADE_AFTERWARDS).fetchall()
        for drop, _ in defined:
            connection.execute(drop.encode())

    def make(first: int) -> None:
        params = {
            "all": jobs,
            "span": SPAN,
            "tenants": tenants,
            "first": first,
            "last": min(jobs, first + PORTION - 1),
        }
        with psycopg.connect(url, autocommit=True) as own:
            own.execute("SET synchronous_commit = off")
            own.execute("SET session_replication_role = replica")
            for statement in statements:
                own.execute(statement, params)

    figures = {"jobs": jobs}
    with report.measured("filled", figures), ThreadPoolExecutor(2) as threads:
        for _ in threads.map(make, range(1, jobs + 1, PORTION)):
            pass
    with psycopg.connect(url, autocommit=True) as connection, report.measured("indexed and analyzed", {}):
        for _, make_again in reversed(defined):
            connection.execute(make_again.encode())
        recount(connection)
        connection.execute("VACUUM (ANALYZE) jobs, jobbridge_broker.messages")
        connection.execute(sql.SQL(durable).format(sql.SQL("on")))
        connection.execute("SELECT pg_reload_conf()")
        connection.execute("CHECKPOINT")


#: A load is quicker without indexes.
_MADE_AFTERWARDS = """
SELECT format('DROP INDEX %s', indexrelid::regclass), pg_get_indexdef(indexrelid)
FROM pg_index
WHERE indrelid IN ('public.jobs'::regclass, 'jobbridge_broker.messages'::regclass) AND NOT indisprimary
UNION ALL
SELECT format('ALTER TABLE %s DROP CONSTRAINT %s', conrelid::regclass, conname),
    format('ALTER TABLE %s ADD CONSTRAINT %s %s', conrelid::regclass, conname, pg_get_constraintdef(oid))
FROM pg_constraint
WHERE conrelid IN ('public.jobs'::regclass, 'jobbridge_broker.messages'::regclass) AND contype = 'p'
"""

_SIZES = """
SELECT coalesce(parent.relname, kept.relname), sum(pg_table_size(kept.oid))::bigint,
    sum(pg_indexes_size(kept.oid))::bigint
FROM pg_class AS kept
LEFT JOIN pg_inherits ON inhrelid = kept.oid
LEFT JOIN pg_class AS parent ON parent.oid = inhparent
WHERE kept.relkind = 'r' AND coalesce(parent.relname, kept.relname) IN ('jobs', 'job_details', 'messages')
GROUP BY 1
"""
_INDEXES = """
SELECT coalesce(parent.relname, kept.relname), sum(pg_relation_size(kept.oid))::bigint AS bytes
FROM pg_index
JOIN pg_class AS kept ON kept.oid = indexrelid
JOIN pg_class AS owner ON owner.oid = indrelid
LEFT JOIN pg_inherits ON inhrelid = kept.oid
LEFT JOIN pg_class AS parent ON parent.oid = inhparent
WHERE kept.relkind = 'i' AND (owner.relname ~ '^jobs(_p|_default|$)' OR owner.relname = 'messages')
GROUP BY 1 HAVING sum(pg_relation_size(kept.oid)) > 1e6 ORDER BY 2 DESC
"""


def sizes(report: Report, url: str, what: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for table, heap, indexes in connection.execute(_SIZES).fetchall():
            report.say(what, table=table, heap_mb=heap >> 20, indexes_mb=indexes >> 20)
        indexes = {name: size >> 20 for name, size in connection.execute(_INDEXES).fetchall()}
        report.say(f"{what}: indexes, MB", **indexes)


# -- what is asked


def _median(work: Callable[[], object], times: int = 5) -> dict[str, float]:
    """Give the milliseconds that it took the first time, and in the middle of the others."""
    taken = []
    for _ in range(times + 1):
        began = time.perf_counter()
        work()
        taken.append(1000 * (time.perf_counter() - began))
    return {"first_ms": round(taken[0], 1), "median_ms": round(statistics.median(taken[1:]), 1)}


def claim(report: Report, url: str) -> None:
    params = {"queue": "celery", "limit": 8, "consumer": 1, "done": [], "suspect_from": 4}
    with psycopg.connect(url, autocommit=True) as connection:
        for name, value in SETTINGS.items():
            connection.execute("SELECT set_config(%s, %s, false)", [name, value])

        def claim_some() -> None:
            with connection.transaction(force_rollback=True):
                connection.execute(claiming.CLAIM, params, prepare=True)

        report.say("a claim of 8", **_median(claim_some, 50))


_PATHS: Sequence[str] = (
    "/",
    "/jobs",
    "/jobs?tenant=tenant-7",
    "/jobs?status=queued",
    "/jobs?status=processing",
    "/jobs?status=failed",
    "/workers",
    "/tenants",
)


def look(app: Any, report: Report, environment: Mapping[str, str]) -> None:
    with psycopg.connect(environment["DATABASE_URL"], autocommit=True) as connection:
        row = connection.execute(
            "SELECT tenant, job_id FROM jobs WHERE tenant LIKE 'tenant-%' ORDER BY created_at OFFSET 1000 LIMIT 1"
        ).fetchone()
    assert row is not None
    key = JobKey(tenant=TenantId(row[0]), job_id=row[1])
    job = app.jobs.find(key.job_id)
    assert job is not None
    token, _ = AccessStore(app.database).create(f"bench-{time.time_ns()}", Role.ADMIN)
    headers = {"accept": "text/html", "authorization": f"Bearer {token}"}
    with TestClient(make_dashboard(app), base_url="https://jobs.example", headers=headers) as client:
        for path in (*_PATHS, f"/jobs/{key.job_id}"):
            status = client.get(path).status_code
            taken = _median(lambda path=path: client.get(path), 3)  # type: ignore[misc]
            report.say("page", path=path.replace(str(key.job_id), "JOB"), status=status, **taken)
    report.say("explain", **_median(lambda: explain(app, job)))
    report.say("queues", **_median(lambda: queues.look(app, app.workers.alive(), limit=10_000)))
    report.say("doctor", **_median(lambda: check_all(app, app.settings), 2))
    for check in check_all(app, app.settings):
        if not check.is_good:
            report.say("doctor says", check=check.name, found=check.found)


def drain(app: Any, report: Report, environment: Mapping[str, str], folder: Path, seconds: float) -> None:
    argv = [
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
    ]
    worker = ManagedProcess(
        name="worker", argv=argv, log_path=folder / "worker.log", env=clean_environment(dict(environment))
    ).start()
    counts = CountStore(app.database)

    def ended() -> int:
        return counts.totals().get((Engine.CELERY, JobStatus.COMPLETED), 0)

    before = ended()
    figures = {"jobs": 0}
    try:
        wait_until(lambda: ended() > before + 200, timeout=120)
        with report.measured("drained", figures):
            first = ended()
            time.sleep(seconds)
            figures["jobs"] = ended() - first
    finally:
        worker.kill()


# -- what goes

#: As they were had they run: with the steps.
_AGE = """
WITH aged AS (
    UPDATE jobs SET status = 'completed', attempt = 1, completed_at = created_at + interval '1 minute',
        started_at = created_at + interval '59 seconds', updated_at = created_at + interval '1 minute', result = '1'
    WHERE created_at < (SELECT min(created_at) FROM jobs) + %(long)s::interval AND completed_at IS NULL
    RETURNING tenant, job_id, started_at, completed_at
)
INSERT INTO job_details (tenant, job_id, step_name, status, retry_count, created_at, updated_at, processed_at)
SELECT tenant, job_id, 'attempt', 'completed', 1, started_at, completed_at, completed_at FROM aged
"""


def age(report: Report, url: str, long: timedelta) -> None:
    """Have the oldest jobs ended, long ago."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET session_replication_role = replica")
        figures: dict[str, Any] = {}
        with report.measured("made old", figures):
            figures["jobs"] = connection.execute(_AGE, {"long": long}).rowcount
        recount(connection)
        connection.execute("VACUUM (ANALYZE) job_details")
        connection.execute("CHECKPOINT")


def prune(app: Any, report: Report, url: str) -> None:
    before, figures = _jobs_of(url), {"jobs": 0}
    never, pruner = threading.Event(), Pruner(app, rest=timedelta(0))
    with report.measured("retention", figures):
        gone = True
        while gone:
            swept = pruner.run(never)
            gone = bool(swept.get("jobs") or swept.get("partitions"))
        figures["jobs"] = before - _jobs_of(url)
    with psycopg.connect(url, autocommit=True) as connection, report.measured("vacuum after it", {}):
        connection.execute("VACUUM (ANALYZE) jobs, job_details")


def _jobs_of(url: str) -> int:
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute("SELECT count(*) FROM jobs").fetchone()
        assert row is not None
        return int(row[0])


if __name__ == "__main__":
    main()
