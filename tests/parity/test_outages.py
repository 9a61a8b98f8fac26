"""A Temporal that comes and goes at random: each job ends, each ran once, and its row names the engine that ran it.

`OUTAGE_JOBS=200 OUTAGE_SECONDS=60 OUTAGE_SEED=7 pytest tests/parity/test_outages.py` is the long run; OUTAGE_WORKERS=2
lets two Temporal workers share the jobs.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from jobbridge import Celery
from jobbridge.core.keys import Engine
from jobbridge.core.status import FINAL, JobStatus
from jobbridge.dev.process import free_port
from jobbridge.dev.temporal import TemporalServer, run_temporal
from jobbridge.settings import load_settings
from jobbridge.temporal.wire import client as temporal_client
from tests.parity.conftest import World
from tests.parity.tasks import make_app
from tests.support import wait_until

JOBS = int(os.environ.get("OUTAGE_JOBS", "40"))
DURATION = timedelta(seconds=float(os.environ.get("OUTAGE_SECONDS", "8")))
WORKERS = int(os.environ.get("OUTAGE_WORKERS", "1"))
SEED = int(os.environ.get("OUTAGE_SEED", "20240611"))
#: How long the last job may take when Temporal is back for good.
PATIENCE = 60.0


@dataclass(frozen=True, kw_only=True)
class Sent:
    """One job, and how often its code is to run."""

    task_id: str
    note: str
    runs: int


@pytest.fixture
def engine() -> Engine:
    return Engine.TEMPORAL


class UnsteadyTemporal:
    """A server that is stopped, killed, frozen and started again, always on the same port and file."""

    def __init__(self, folder: Path, chance: random.Random) -> None:
        self.port = free_port()
        self._folder = folder
        self._chance = chance
        self._over = threading.Event()
        self._starts = 0
        self.story: list[str] = []

    @contextmanager
    def coming_and_going(self) -> Iterator[None]:
        """Disturb it beside the block; when the block has ended it is up, and stays until `close`."""
        disturbing = threading.Thread(target=self._disturb, name="unsteady temporal")
        disturbing.start()
        try:
            yield
        finally:
            self._over.set()
            disturbing.join()

    @contextmanager
    def server(self) -> Iterator[TemporalServer]:
        self._starts += 1
        log = self._folder / f"temporal-{self._starts}.log"
        with run_temporal(port=self.port, database=self._folder / "temporal.sqlite", log_path=log) as server:
            yield server

    def _disturb(self) -> None:
        began = time.monotonic()
        while not self._over.wait(self._chance.uniform(0.2, 2.0)):
            with self.server() as server:
                self.story.append(f"{time.monotonic() - began:.1f} up")
                if self._over.wait(self._chance.uniform(0.5, 4.0)):
                    return
                how = self._chance.choice(["stop", "kill", "freeze", "freeze"])
                self.story.append(f"{time.monotonic() - began:.1f} {how}")
                if how == "kill":
                    server.process.kill()
                elif how == "freeze":
                    os.kill(server.process.pid, signal.SIGSTOP)
                    self._over.wait(self._chance.uniform(0.5, 4.0))
                    os.kill(server.process.pid, signal.SIGCONT)
                    self._over.wait(self._chance.uniform(0.0, 2.0))


def send_one(app: Celery, chance: random.Random, number: int) -> Sent:
    tasks: dict[str, Any] = app.tasks
    countdown = chance.choice([0, 0, 0, chance.uniform(0.5, 3.0)])
    kind = chance.choice(["add", "takes", "retry_until"])
    arguments: dict[str, tuple[tuple[Any, ...], int]] = {
        "add": ((1, number), 1),
        "takes": ((round(chance.uniform(0.1, 2.0), 2),), 1),
        "retry_until": ((1,), 2),
    }
    args, runs = arguments[kind]
    result = tasks[f"parity.{kind}"].apply_async(args, countdown=countdown)
    return Sent(task_id=result.id, note=kind, runs=runs)


def send_all(make: Callable[[], Celery], seed: int) -> list[Sent]:
    """Send from four threads of two apps, spread over the time."""
    apps = [make(), make()]
    sent: list[Sent] = []

    def send(part: int) -> None:
        chance = random.Random(seed * 100 + part)
        pause = DURATION.total_seconds() / (JOBS / 4)
        for number in range(part, JOBS, 4):
            sent.append(send_one(apps[part % 2], chance, number))
            time.sleep(chance.uniform(0, 2 * pause))  # what is to be seen is what happens in time

    threads = [threading.Thread(target=send, args=(part,)) for part in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sent


@pytest.mark.long
@pytest.mark.timeout(300 + DURATION.total_seconds() * 3)
def test_jobs_of_an_unsteady_temporal_all_end_and_each_ran_once(
    own_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    print(f"seed {SEED}")
    monkeypatch.setattr(temporal_client, "CALL_TIMEOUT", temporal_client.CALL_TIMEOUT / 10)
    unsteady = UnsteadyTemporal(tmp_path, random.Random(SEED))
    own_world.environment |= {
        "TEMPORAL_ADDRESS": f"127.0.0.1:{unsteady.port}",
        "JOB_RUNNER_INIT_FAILURE_BACKOFF_MS": "500",
    }
    with ExitStack() as opened:

        def make() -> Celery:
            app = make_app(settings=load_settings(own_world.environment))
            app.finalize()
            opened.callback(app.close)
            return app

        own_world.worker(engine=Engine.CELERY)
        with unsteady.server():
            for _ in range(WORKERS):
                own_world.worker(engine=Engine.TEMPORAL)
        with unsteady.coming_and_going():
            sent = send_all(make, SEED)
        print(", ".join(unsteady.story))
        with unsteady.server():
            began = time.monotonic()
            wait_until(lambda: not unfinished(own_world), timeout=PATIENCE, message="every job is final")
            print(f"all final after {time.monotonic() - began:.1f} s")

    rows = {row["task_id"]: row for row in own_world.rows()}
    assert len(rows) == len(sent) == JOBS
    assert {row["status"] for row in rows.values()} == {JobStatus.COMPLETED}
    ran = {each.task_id: len(own_world.lines(each.task_id, each.note)) for each in sent}
    assert ran == {each.task_id: each.runs for each in sent}
    for each in sent:
        assert_its_row_tells_where_it_ran(own_world, rows[each.task_id])
    engines = [row["runner_type"] for row in rows.values()]
    print({engine: engines.count(engine) for engine in set(engines)})


def unfinished(world: World) -> list[dict[str, Any]]:
    found = [row for row in world.rows() if JobStatus(row["status"]) not in FINAL]
    assert not found, [(row["task_id"], row["type"], row["status"], row["runner_type"]) for row in found]
    return found


def assert_its_row_tells_where_it_ran(world: World, row: dict[str, Any]) -> None:
    steps = world.details(row["task_id"])
    attempts = [step for step in steps if step["step_name"] == "attempt"]
    assert {step["metadata"]["engine"] for step in attempts} == {row["runner_type"]}, row["task_id"]
    fell_back = any(step["step_name"] == "fallback" for step in steps)
    assert fell_back == (row["runner_type"] == Engine.CELERY), row["task_id"]
