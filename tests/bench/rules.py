"""What rules across the fleet hold, and what they cost: `python -m tests.bench.rules WHAT [--engine …] [--jobs …]`.

Real workers on servers of its own. The rows' own times say what happened, by the database's clock.

- `limit`: so many jobs under a limit of 3, on 8 processes of 4 workers of which one is killed every few seconds.
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
from typing import Any

from jobbridge.core.keys import Engine
from tests.bench.rules_fleet import fleet
from tests.bench.rules_waits import WAITS
from tests.support import wait_until

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["limit", "rate", *WAITS])
    parser.add_argument("--engine", type=Engine, default=Engine.CELERY)
    parser.add_argument("--jobs", type=int)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    if given.what == "limit":
        print(json.dumps(limit(given.engine, given.jobs or 50_000, given.seed)))
    elif given.what == "rate":
        print(json.dumps(rate(given.engine, given.jobs or 3_000)))
    else:
        measure, jobs = WAITS[given.what]
        print(json.dumps(measure(given.engine, given.jobs or jobs)))


if __name__ == "__main__":
    main()
