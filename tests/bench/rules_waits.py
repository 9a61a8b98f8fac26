"""How long jobs wait for their rules, and how fast they are sent under them: parts of `tests.bench.rules`."""

from __future__ import annotations

import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import psycopg

from jobbridge.core.keys import Engine
from jobbridge.core.rules.limits import concurrency_rules
from jobbridge.store.rules.fleet import RuleStore
from jobbridge.store.workers.queue_pauses import QueuePauses
from tests.bench.copies import copy_rows
from tests.bench.rules_fleet import Fleet, fleet
from tests.support import wait_until

SENDERS = 8
#: Of `fair`: so many tenants beside the large one, in so many rounds.
OTHERS, ROUNDS = 99, 6
#: Without a fair rule the others are not waited for any longer.
PATIENCE = 30.0

#: From the end of the job before until the next begins, which that end allowed.
GAPS = """
SELECT extract(epoch FROM started_at - before)::float FROM (
    SELECT started_at, lag(completed_at) OVER (ORDER BY started_at) AS before
    FROM jobs WHERE type = 'one'
) AS ordered
WHERE before IS NOT NULL
"""

#: Of the large tenant's jobs so many are sent; the others are copies of what those that wait left in the tables.
SENT = 500
HELD = "(SELECT task_id FROM job_holds WHERE state = 'waiting')"
COPIED = {
    "jobs": f"own.queue = 'without' OR own.task_id IN {HELD}",
    "jobbridge_broker.messages": f"own.queue = 'without' OR own.correlation_id IN {HELD}",
    "job_holds": "own.state = 'waiting'",  # the last: the others ask it which are meant
}
HELD_ROWS = {
    "jobs": f"own.task_id IN {HELD}",
    "jobbridge_broker.messages": f"own.correlation_id IN {HELD}",
    "job_holds": "own.state = 'waiting'",
}
PLACES = """
UPDATE job_holds AS hold SET place = placed.number
FROM (SELECT sequence, row_number() OVER (ORDER BY sequence) AS number FROM job_holds WHERE state = 'waiting') AS placed
WHERE hold.sequence = placed.sequence
"""
NEXT = """
EXPLAIN (ANALYZE, COSTS off, TIMING off) SELECT * FROM job_holds AS next
WHERE next.rule = 'concurrency queue beside' AND next.state = 'waiting'
ORDER BY next.priority DESC, next.place, next.sequence LIMIT 1
"""

WAITED = """
SELECT extract(epoch FROM started_at - created_at)::float
FROM jobs
WHERE queue = %(queue)s AND tenant <> 'large' AND created_at >= %(since)s
"""


def start(engine: Engine, jobs: int) -> dict[str, Any]:
    """Measure from when a job may begin until it does: after the end of another, and at the instant of a rate."""
    with fleet(engine) as made:
        made.start(2)
        made.app.tasks["taken"].delay(0)
        wait_until(lambda: made.left() == 0, timeout=60)
        for _ in range(jobs):
            made.app.tasks["one"].delay(0.02)
        wait_until(lambda: made.left() == 0, timeout=600, every=0.5)
        with psycopg.connect(made.url) as connection:
            after_an_end = [row[0] for row in connection.execute(GAPS.encode())]
        return {
            "jobs": jobs,
            "after an end ms": _quantiles(after_an_end),
            "after its instant ms": _quantiles(_after_instants(made, jobs)),
        }


def _after_instants(made: Fleet, jobs: int) -> list[float]:
    with psycopg.connect(made.url) as connection:
        with made.app.enqueue_on(connection):
            for _ in range(jobs):
                made.app.tasks["slow"].delay()
        connection.commit()
        instants: dict[Any, datetime] = dict(
            connection.execute("SELECT job_id, slot_at FROM job_holds WHERE slot_at IS NOT NULL").fetchall()
        )
    wait_until(lambda: made.left() == 0, timeout=jobs / 10 + 60, every=0.5)
    with psycopg.connect(made.url) as connection:
        began = connection.execute("SELECT job_id, started_at FROM jobs WHERE type = 'slow'").fetchall()
    return [(at - instants[job_id]).total_seconds() for job_id, at in began if job_id in instants]


def send(engine: Engine, jobs: int) -> dict[str, Any]:
    """Measure how many jobs several senders send a second, each job in a transaction of its own."""
    told: dict[str, Any] = {}
    with fleet(engine) as made:
        hold: Mapping[str, Callable[[int], Any]] = {
            "no rule": lambda sender: None,
            "one rule each": lambda sender: {"limit": 1, "key": str(sender)},
            "one rule, full": lambda sender: {"limit": 1, "key": "all"},
            "one rule, free": lambda sender: {"limit": 1_000_000, "key": "free"},
        }
        for name, rule_of in hold.items():
            per_second, waits = _sent(made, jobs, rule_of)
            told[name] = {"per second": round(per_second), "waits": waits}
    return told


def _sent(made: Fleet, jobs: int, rule_of: Callable[[int], Any]) -> tuple[float, dict[str, int]]:
    task = made.app.tasks["taken"]

    def work(sender: int) -> None:
        rule = rule_of(sender)
        for _ in range(jobs // SENDERS):
            task.apply_async([0], **({} if rule is None else {"concurrency": rule}))

    threads = [threading.Thread(target=work, args=[number]) for number in range(SENDERS)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    waits = _waits(made.url, threads)
    for thread in threads:
        thread.join()
    return jobs / (time.monotonic() - began), waits


def _waits(url: str, threads: Sequence[threading.Thread]) -> dict[str, int]:
    """Tell for what the senders' sessions wait while they send: how often each was seen."""
    seen = Counter[str]()
    looked = """
    SELECT coalesce(wait_event_type || ' ' || wait_event, 'on a processor') FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND state = 'active'
    """
    with psycopg.connect(url, autocommit=True) as connection:
        while any(thread.is_alive() for thread in threads):
            seen.update(row[0] for row in connection.execute(looked).fetchall())
            time.sleep(0.02)  # between two looks
    return dict(seen.most_common(5))


def fair(engine: Engine, jobs: int) -> dict[str, Any]:
    """Measure how long the jobs of tenants wait, alone and beside one that has so many waiting.

    Three queues, in turn: two under a fair rule, of which one has the large tenant's jobs, and one without a rule that
    has as many of them. The queue whose turn it is not is paused.
    """
    waits: dict[str, list[float]] = {"alone": [], "beside": [], "without": []}
    told: dict[str, Any] = {}
    with fleet(engine) as made:
        (rule,) = concurrency_rules({"limit": 8, "per": "queue", "fair": True})
        pauses, store = QueuePauses(made.app.database), RuleStore(made.app.database)
        for queue in waits:
            pauses.pause(queue)
            if queue != "without":
                store.set(rule, queue, weights={"tenant-1": 2})
        for queue in ("beside", "without"):
            for _ in range(SENT):
                made.app.tasks["taken"].apply_async([0.01], tenant="large", queue=queue)
        copy_rows(made.url, jobs // SENT - 1, COPIED)
        with psycopg.connect(made.url, autocommit=True) as connection:
            connection.execute(PLACES)
            told["plan of the next"] = [row[0] for row in connection.execute(NEXT).fetchall()]
        for queue in waits:
            made.start(8, queue)
        for turn in range(ROUNDS):
            for queue in ("alone", "beside") if turn else waits:
                waits[queue] += _round(made, queue)
    alone, beside = statistics.median(waits["alone"]), statistics.median(waits["beside"])
    without = statistics.median(waits["without"])
    return told | {
        "waiting": jobs,
        "median alone ms": round(1000 * alone),
        "median beside ms": round(1000 * beside),
        "times": round(beside / alone, 2),
        "median without a fair rule s": "more than 30" if without >= PATIENCE else round(without, 1),
    }


def _round(made: Fleet, queue: str) -> list[float]:
    task, pauses = made.app.tasks["taken"], QueuePauses(made.app.database)
    pauses.resume(queue)
    warm = made.one("SELECT count(*) FROM jobs WHERE started_at IS NOT NULL")
    task.apply_async([0], tenant="warm", queue=queue, priority=9)
    wait_until(lambda: made.one("SELECT count(*) FROM jobs WHERE started_at IS NOT NULL") > warm, timeout=60)
    since = made.one("SELECT clock_timestamp()")
    began = time.monotonic()
    for number in range(OTHERS):
        task.apply_async([0.01], tenant=f"tenant-{number}", queue=queue)

    def have_begun() -> bool:
        waited = made.rows(WAITED, queue=queue, since=since)
        return None not in waited or time.monotonic() - began > PATIENCE

    wait_until(have_begun, timeout=600, every=0.3)
    pauses.pause(queue)
    wait_until(
        lambda: made.one("SELECT count(*) FROM jobs WHERE status = 'processing'") == 0, timeout=60, every=0.2
    )
    return [PATIENCE if each is None else each for each in made.rows(WAITED, queue=queue, since=since)]


def _quantiles(seconds: Sequence[float]) -> dict[str, float]:
    ordered = sorted(1000 * each for each in seconds)
    return {
        "p50": round(ordered[len(ordered) // 2], 1),
        "p95": round(ordered[len(ordered) * 95 // 100], 1),
        "most": round(ordered[-1], 1),
    }


#: By name: what measures it, and of how many jobs.
WAITS: Mapping[str, tuple[Callable[[Engine, int], dict[str, Any]], int]] = {
    "start": (start, 200),
    "send": (send, 2_000),
    "fair": (fair, 100_000),
}
