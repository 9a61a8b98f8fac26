"""Make ten million jobs of 200 tenants within 90 days. No test: `python -m tests.bench.many_jobs FOLDER`.

A server of Postgres with its usual settings keeps them in the folder until it is stopped (Ctrl-C); begun again, it has
them still. Its address is written into `FOLDER/url`. It takes some three minutes and 8 GB.
"""

from __future__ import annotations

import argparse
import signal
import threading
import time
from pathlib import Path
from typing import LiteralString

import psycopg
from psycopg import sql

from jobbridge.dev.postgres import run_postgres
from jobbridge.store.migrations import migrate

TENANTS = 200
DAYS = 90
TYPES = (
    "generate-invoice", "invoice-email", "asset_import", "credits.expire", "calendar.renew", "cleanup.keys",
    "demo.sleep", "report.daily",
)  # fmt: skip
QUEUES = ("celery", "mail", "reports")
ENGINES = ("celery", "temporal")
STATUSES = ("completed", "failed", "cancelled", "expired", "processing", "scheduled", "queued")

_JOBS = 10_000_000
_PORTION = 1_000_000

#: Few tenants have many jobs. Nearly all are completed, 3 % failed, 0.4 % cancelled, 0.01 % expired; a few that run or
#: are scheduled lie anywhere, and of the newest half wait.
FILL: LiteralString = """
INSERT INTO jobs (tenant, job_id, task_id, type, status, metadata, runner_type, external_id, queue, attempt, worker,
    worker_number, error, created_at, updated_at, started_at, completed_at, run_at)
SELECT tenant, job_id, job_id::text, (%(types)s::text[])[1 + n %% 8], status, '{"data": {"invoice": 1}}',
    CASE WHEN n %% 3 = 0 THEN 'temporal' ELSE 'celery' END, job_id::text, (%(queues)s::text[])[1 + n %% 3],
    CASE WHEN status IN ('queued', 'scheduled') THEN 0 ELSE 1 END, 'w1@host', 1,
    CASE WHEN status = 'failed'
        THEN 'ConnectionError: smtp.example.com:25 refused the connection (attempt 3)' END,
    at, at, CASE WHEN status NOT IN ('queued', 'scheduled') THEN at + interval '1 second' END,
    CASE WHEN status IN ('completed', 'failed', 'cancelled', 'expired') THEN at + interval '3 seconds' END,
    CASE WHEN status = 'scheduled' THEN now() + interval '1 day' END
FROM (
    SELECT n, now() - (%(jobs)s - n) * (%(days)s * interval '1 day' / %(jobs)s) AS at,
        't' || floor(200 * random() ^ 2)::integer AS tenant, random() AS chance
    FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS n
) AS base,
LATERAL (
    SELECT CASE
            WHEN n > %(jobs)s - 2000 AND chance < 0.5 THEN 'queued'
            WHEN n > %(jobs)s - 2000 AND chance < 0.55 THEN 'processing'
            WHEN n %% 200003 = 0 THEN 'processing'
            WHEN n %% 20011 = 0 THEN 'scheduled'
            WHEN chance < 0.03 THEN 'failed'
            WHEN chance < 0.034 THEN 'cancelled'
            WHEN chance < 0.0341 THEN 'expired'
            ELSE 'completed'
        END AS status, uuidv7(at - now()) AS job_id
    OFFSET 0
) AS more
"""

_INDEXES: LiteralString = """
SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'jobs' AND indexname <> 'jobs_pkey'
"""


def fill(url: str, *, jobs: int = _JOBS) -> None:
    """Make the jobs in a database that is at the revision before the counts; indexes are made last."""
    with psycopg.connect(url, autocommit=True) as connection:
        indexes = connection.execute(_INDEXES).fetchall()
        for name, _ in indexes:
            connection.execute(sql.SQL("DROP INDEX {}").format(sql.Identifier(name)))
        for first in range(1, jobs + 1, _PORTION):
            values = {"first": first, "last": min(first + _PORTION - 1, jobs), "jobs": jobs, "days": DAYS}
            connection.execute(FILL, values | {"types": list(TYPES), "queues": list(QUEUES)})
            _tell(f"{values['last']} jobs")
        for _, statement in indexes:
            connection.execute(statement)
        connection.execute("VACUUM (ANALYZE, PARALLEL 0) jobs")
        _tell("indexes and statistics")


def _tell(what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {what}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--jobs", type=int, default=_JOBS)
    given = parser.parse_args()
    is_new = not (given.folder / "postgres").exists()
    with run_postgres(given.folder / "postgres", is_durable=True) as server:
        url = server.create_database("many") if is_new else (given.folder / "url").read_text()
        if is_new:
            (given.folder / "url").write_text(url)
            migrate(url, "0007_families")
            fill(url, jobs=given.jobs)
        begun = time.monotonic()
        migrate(url)
        _tell(f"migrated in {time.monotonic() - begun:.1f} s; ready: {given.folder / 'url'}")
        ended = threading.Event()
        signal.signal(signal.SIGINT, lambda *_: ended.set())
        signal.signal(signal.SIGTERM, lambda *_: ended.set())
        ended.wait()


if __name__ == "__main__":
    main()
