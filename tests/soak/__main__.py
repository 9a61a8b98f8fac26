"""Mixed work while everything breaks: `python -m tests.soak [--minutes 10] [--jobs 200000] [--seed 1]`, `make soak`.

Four workers of three pools, killed at random with their pool's processes; Postgres restarted twice, and a standby
promoted; connections cut, sessions ended, statements cancelled and refused. Every job must run, none again after it was
acknowledged, no cancelled one after its cancel was confirmed; every row ends, and nothing is left in the tables.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from pathlib import Path
from tempfile import mkdtemp

from jobbridge.settings import load_settings
from tests.soak.app import make_app
from tests.soak.verdict import Verdict, judge
from tests.soak.work import Sender
from tests.soak.world import Chaos, World
from tests.support import wait_until


def soak(folder: Path, *, seconds: float, jobs: int, seed: int) -> Verdict:
    """Run it, and tell what came of it.

    Args:
        folder: For servers and logs; every account may enter it.
        seconds: So long things break; then all is left alone until the work is done.
        jobs: How many are sent at most.
        seed: Of what is chosen at random.
    """
    chance = random.Random(seed)
    world = World(folder)
    try:
        app = make_app(settings=load_settings({"DATABASE_URL": world.url}))
        app.finalize()
        world.start_workers()
        sender = Sender(app, jobs, chance=random.Random(seed))
        chaos = Chaos(world, seconds, chance)
        began = time.monotonic()
        sender.thread.start()
        chaos.thread.start()
        chaos.thread.join()
        sender.stop()
        if chaos.error is not None:
            raise chaos.error
        _wait_until_done(world)
        verdict = judge(world, sender.sent)
        verdict.numbers["seconds"] = round(time.monotonic() - began, 1)
        app.database.close()
        app.close()
        return verdict
    finally:
        world.close()


def _wait_until_done(world: World) -> None:
    def open_jobs() -> int:
        world.mend_workers()
        return int(world.look("SELECT count(*) FROM jobs WHERE completed_at IS NULL")[0][0])

    # What was sent takes its time; what hangs does not get less. What was lost in an outage comes back by looks a
    # minute apart, after a grace of a minute.
    fewest, since = open_jobs(), time.monotonic()
    while fewest and time.monotonic() - since < 240:
        time.sleep(0.5)  # between two looks
        if (now := open_jobs()) < fewest:
            fewest, since = now, time.monotonic()
    if not fewest:
        wait_until(lambda: _is_empty(world), timeout=240)


def _is_empty(world: World) -> bool:
    """Whether no message and no open chord is left. Raises AssertionError with what is."""
    left = world.look(
        """
        SELECT 'message', to_jsonb(m) - 'body', to_jsonb(c)
        FROM jobbridge_broker.messages AS m LEFT JOIN jobbridge_broker.consumers AS c ON c.id = leased_by
        UNION ALL SELECT 'chord', to_jsonb(c), NULL FROM job_chords AS c
        LIMIT 10
        """
    )
    assert not left, f"no job is open, but there is: {left}"
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--jobs", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    folder = Path(mkdtemp(prefix="jobbridge-soak-"))
    folder.chmod(0o755)
    verdict = soak(folder, seconds=arguments.minutes * 60, jobs=arguments.jobs, seed=arguments.seed)
    print(json.dumps(verdict.numbers, indent=2))
    for what, which in verdict.wrong.items():
        print(f"{len(which)} {what}: {which[:10]}")
    print(f"logs: {folder}")
    return 1 if verdict.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
