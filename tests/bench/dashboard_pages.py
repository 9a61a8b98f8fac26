"""How long pages take with many jobs: `python -m tests.bench.dashboard_pages URL_OF_THE_DASHBOARD [--clients 4]`.

Asks for pages of jobs with random filters, from several clients at once, and prints the percentiles by kind of filter.
`--fill` makes the jobs first: ten million of 200 tenants in the (empty, migrated) database that DATABASE_URL names.
"""

from __future__ import annotations

import argparse
import os
import random
import threading
import time
from collections import defaultdict
from collections.abc import Mapping
from urllib.parse import urlencode

import httpx2
import psycopg

TYPES = (
    "generate-invoice", "invoice-email", "asset_import", "credits.expire", "calendar.renew", "cleanup.keys",
    "demo.sleep", "report.daily",
)  # fmt: skip
QUEUES = ("celery", "mail", "reports")
STATUSES = ("queued", "scheduled", "processing", "completed", "failed", "cancelled", "expired")

#: 0.7776 s between two jobs: ten million are 90 days. A few are still open, most of the newest wait.
_FILL = """
INSERT INTO public.jobs (
    tenant, job_id, task_id, type, status, metadata, runner_type, external_id, queue, attempt, worker, worker_number,
    error, created_at, updated_at, started_at, completed_at, run_at, unsuccessful
)
SELECT tenant, job_id, job_id::text, (%(types)s::text[])[1 + n %% 8], status, '{"data": {"invoice": 1}}',
    CASE WHEN n %% 3 = 0 THEN 'temporal' ELSE 'celery' END, job_id::text, (%(queues)s::text[])[1 + n %% 3],
    CASE WHEN status IN ('queued', 'scheduled') THEN 0 ELSE 1 END, 'w1@host', 1,
    CASE WHEN status = 'failed' THEN 'ConnectionError: smtp.example.com:25 refused the connection' END,
    at, at, CASE WHEN status NOT IN ('queued', 'scheduled') THEN at + interval '1 second' END,
    CASE WHEN status IN ('completed', 'failed', 'cancelled', 'expired') THEN at + interval '3 seconds' END,
    CASE WHEN status = 'scheduled' THEN now() + interval '1 day' END,
    CASE WHEN status IN ('failed', 'cancelled', 'expired') THEN status END
FROM (
    SELECT n, now() - (%(all)s - n) * interval '0.7776 seconds' AS at,
        't' || floor(200 * random() ^ 2)::int AS tenant, random() AS r
    FROM generate_series(%(first)s, %(last)s) AS n
) AS base,
LATERAL (
    SELECT gen_random_uuid() AS job_id, CASE
        WHEN n > %(all)s - 2000 AND r < 0.5 THEN 'queued'
        WHEN n > %(all)s - 2000 AND r < 0.55 OR n %% 200003 = 0 THEN 'processing'
        WHEN n %% 20011 = 0 THEN 'scheduled'
        WHEN r < 0.03 THEN 'failed'
        WHEN r < 0.034 THEN 'cancelled'
        WHEN r < 0.0341 THEN 'expired'
        ELSE 'completed' END AS status
    OFFSET 0
) AS more
"""
_BATCH = 500_000

Query = list[tuple[str, str]]


def _tenant(chance: random.Random) -> tuple[str, str]:
    return "tenant", f"t{int(200 * chance.random() ** 2)}"


def _kinds(chance: random.Random) -> Mapping[str, Query]:
    """Make a query of each kind that people ask; most are combined with a tenant half of the time."""
    of_type, of_queue = ("type", chance.choice(TYPES)), ("queue", chance.choice(QUEUES))
    word = chance.choice(["refused", "smtp.example.com", "nowhere to be found"])
    before = f"2026-{chance.choice(['09', '10'])}-{chance.randint(1, 28):02}T08:00"
    failed = ("status", "failed")
    return {
        "no filter": [],
        "tenant": [_tenant(chance)],
        "failed": [failed],
        "rare status": [("status", chance.choice(["processing", "scheduled", "expired", "queued"]))],
        "two statuses": [("status", status) for status in chance.sample(STATUSES, 2)],
        "type": [of_type],
        "type that is not there": [("type", "nobody.sends.this")],
        "queue and engine": [of_queue, ("engine", chance.choice(["celery", "temporal"]))],
        "text of the error": [("text", word)],
        "failed, by text": [failed, ("text", word)],
        "expired, by type and queue": [("status", "expired"), of_type, of_queue],
        "failed, of a time": [failed, ("to", before)],
    }


def fill(url: str, jobs: int) -> None:
    """Make the jobs."""
    with psycopg.connect(url, autocommit=True) as connection:
        for first in range(1, jobs + 1, _BATCH):
            params = {"types": list(TYPES), "queues": list(QUEUES), "all": jobs, "first": first}
            connection.execute(_FILL, params | {"last": min(jobs, first + _BATCH - 1)})
            print(f"{first + _BATCH - 1:,} jobs", flush=True)
        connection.execute("VACUUM (ANALYZE) public.jobs")


def measure(
    address: str, *, clients: int, requests: int, token: str | None, seed: int
) -> dict[str, list[float]]:
    """Give the seconds of each request, by kind."""
    seconds: dict[str, list[float]] = defaultdict(list)
    headers = {"accept": "text/html"} | ({"authorization": f"Bearer {token}"} if token else {})

    def ask(own: int) -> None:
        chance = random.Random(seed * 1000 + own)
        with httpx2.Client(base_url=address, headers=headers, timeout=60) as client:
            for _ in range(requests // clients):
                kind, query = chance.choice(list(_kinds(chance).items()))
                if chance.random() < 0.5 and kind not in {"no filter", "tenant"}:
                    query.append(_tenant(chance))
                began = time.perf_counter()
                answer = client.get(f"/jobs?{urlencode(query)}")
                seconds[kind].append(time.perf_counter() - began)
                answer.raise_for_status()

    threads = [threading.Thread(target=ask, args=[own]) for own in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return seconds


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address")
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--requests", type=int, default=600)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--token")
    parser.add_argument("--fill", type=int, nargs="?", const=10_000_000, metavar="JOBS")
    options = parser.parse_args()
    if options.fill:
        fill(os.environ["DATABASE_URL"], options.fill)
    seconds = measure(
        options.address,
        clients=options.clients,
        requests=options.requests,
        token=options.token,
        seed=options.seed,
    )
    print(f"{'milliseconds':30} {'n':>5} {'p50':>7} {'p95':>7} {'p99':>7} {'most':>7}")
    everything = [each for taken in seconds.values() for each in taken]
    for kind, taken in [*sorted(seconds.items()), ("all", everything)]:
        ordered = sorted(1000 * each for each in taken)
        p50, p95, p99 = (
            ordered[min(len(ordered) - 1, int(part * len(ordered)))] for part in (0.5, 0.95, 0.99)
        )
        print(f"{kind:30} {len(ordered):5} {p50:7.1f} {p95:7.1f} {p99:7.1f} {ordered[-1]:7.1f}")


if __name__ == "__main__":
    main()
