"""What rules across the fleet hold, and what they cost: `python -m tests.bench.rules WHAT [--engine …] [--jobs …]`.

Real workers on servers of its own. The rows' own times say what happened, by the database's clock.

- `limit`: so many jobs wait under a limit of 3, on 8 processes of 4 workers of which one is killed every 3 seconds.
- `rate`: so many jobs at 100 a second, on 4 workers.
- `start`: how long a job that a rule holds waits from when it may begin until it does.
- `send`: how many jobs 8 senders send a second, one a transaction, under one rule, under one each, and under none.
- `fair`: 100 tenants on one queue, of which one has 100,000 jobs waiting: how long the others wait, alone and beside.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections import Counter
from typing import Any

from jobbridge.core.keys import Engine
from jobbridge.core.rules.limits import rate_rules
from jobbridge.store.rules.fleet import RuleStore
from tests.bench.copies import copy_rows
from tests.bench.rules_fleet import Fleet, fleet
from tests.bench.rules_waits import HELD_ROWS, WAITS
from tests.support import wait_until

LIMIT, RATE = 3, 100
#: On Celery so many are sent; the others are copies of what those that wait left in the tables.
SENT = 500

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


def limit(engine: Engine, jobs: int, seed: int) -> dict[str, Any]:
    chance = random.Random(seed)
    with fleet(engine) as made:
        began = time.monotonic()
        number = _send(made, "limited", jobs)
        sent = time.monotonic() - began
        _copy(made, jobs)
        for _ in range(4):
            made.start()
        began, all_jobs, kills = time.monotonic(), made.left(), 0
        while made.left():
            time.sleep(3)  # between two kills
            made.kill_one(chance)
            made.start()
            kills += 1
        took = time.monotonic() - began
        return {
            "jobs": all_jobs,
            "kills": kills,
            "most at once": int(made.one(OVERLAP, type="limited")),
            "completed": int(made.one("SELECT count(*) FROM jobs WHERE status = 'completed'")),
            "ran more than once": int(made.one("SELECT count(*) FROM jobs WHERE attempt > 1")),
            "sent per second": round(number / sent),
            "done per second": round(all_jobs / took),
        }


def _send(made: Fleet, name: str, jobs: int) -> int:
    """Send as many as are needed; gives how many. A row of Temporal's has its message, which cannot be copied so."""
    number = min(SENT, jobs) if made.engine is Engine.CELERY else jobs
    made.send(name, number)
    return number


def _copy(made: Fleet, jobs: int) -> None:
    held = int(made.one("SELECT count(*) FROM job_holds WHERE state = 'waiting'"))
    if made.engine is Engine.CELERY and jobs > held:
        copy_rows(made.url, jobs // held - 1, HELD_ROWS)


def rate(engine: Engine, jobs: int, a_second: int) -> dict[str, Any]:
    with fleet(engine) as made:
        rules = RuleStore(made.app.database)
        (none,), (some,) = rate_rules("0/s"), rate_rules(f"{a_second}/s")
        rules.set(none, "paced")  # until all are there: they are sent more slowly than they may begin
        _send(made, "paced", jobs)
        _copy(made, jobs)
        for _ in range(4):
            made.start()
        made.app.tasks["taken"].delay(0)
        all_jobs = made.left() - 1
        wait_until(lambda: made.left() == all_jobs, timeout=120)
        rules.set(some, "paced")
        wait_until(lambda: made.left() == 0, timeout=jobs / a_second + 600, every=1.0)
        began = sorted(
            made.rows("SELECT extract(epoch FROM started_at)::float FROM jobs WHERE type = 'paced'")
        )
    # Without the first: the instants of some are before the commit that gives them, and those begin in a burst.
    began = began[len(began) // 3 :]
    seconds = began[-1] - began[0]
    per_second = (len(began) - 1) / seconds
    counted = Counter(int(at - began[0]) for at in began)
    return {
        "jobs": all_jobs,
        "allowed per second": a_second,
        "per second": round(per_second, 2),
        "over seconds": round(seconds),
        "off by %": round(100 * (per_second / a_second - 1), 2),
        "most in a second": max(counted.values()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["limit", "rate", *WAITS])
    parser.add_argument("--engine", type=Engine, default=Engine.CELERY)
    parser.add_argument("--jobs", type=int)
    parser.add_argument("--rate", type=int, default=RATE, help="of `rate`, a second")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    if given.what == "limit":
        print(json.dumps(limit(given.engine, given.jobs or 50_000, given.seed)))
    elif given.what == "rate":
        print(json.dumps(rate(given.engine, given.jobs or 100 * given.rate, given.rate)))
    else:
        measure, jobs = WAITS[given.what]
        print(json.dumps(measure(given.engine, given.jobs or jobs)))


if __name__ == "__main__":
    main()
