"""A server, or the network to it, is away from a Temporal worker for a while: each job ran once, and row = workflow.

All that a job can be doing meets each outage: it runs and ends in it, it runs over it, it waits for its time and is due
in it, it waits to be retried, a chain, a group, a chord or children follow from it, it is sent in it.
"""

from __future__ import annotations

import os
import signal
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from jobbridge.core.keys import Engine
from jobbridge.core.status import FINAL
from jobbridge.dev.postgres import PostgresServer
from jobbridge.dev.process import ManagedProcess
from jobbridge.store.schema.migrate import migrate
from tests.beside import Outcomes, had_beside_each_other
from tests.conftest import fresh_database
from tests.histories import assert_histories_replay
from tests.outages import (
    StoppablePostgres,
    StoppableTemporal,
    statuses_at_temporal,
    stoppable_postgres,
    stoppable_temporal,
)
from tests.parity import mixed_tasks
from tests.parity.conftest import World, make_world
from tests.parity.test_following import KINDS, _root
from tests.proxy import Proxy
from tests.support import children_of, wait_until

#: How long all may take to end once what was away is back, in seconds.
PATIENCE = 90.0

TEMPORAL, POSTGRES = "Temporal", "Postgres"


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A world whose worker reaches both servers by proxies; what is to be stopped is its own."""

    world: World
    postgres: StoppablePostgres | None
    temporal: StoppableTemporal | None
    to_postgres: Proxy
    to_temporal: Proxy


@contextmanager
def _opened_stage(folder: Path, request: pytest.FixtureRequest, *owned: str) -> Iterator[Stage]:
    """Open a stage: with servers of its own of these kinds, which are to go away; else they are those of all tests."""
    server_folder: Path = request.getfixturevalue("server_folder")
    with ExitStack() as opened:
        temporal: StoppableTemporal | None = None
        postgres: StoppablePostgres | None = None
        if TEMPORAL in owned:
            temporal = opened.enter_context(stoppable_temporal(server_folder))
        if POSTGRES in owned:
            postgres = opened.enter_context(stoppable_postgres(server_folder))
            postgres_port, url = postgres.server.port, postgres.server.create_database("matrix")
            migrate(url)
        else:
            server: PostgresServer = request.getfixturevalue("postgres")
            template: str = request.getfixturevalue("migrated_template")
            name = opened.enter_context(
                fresh_database(request.getfixturevalue("_administrator"), template=template)
            )
            postgres_port, url = server.port, server.url(name)
        address = temporal.server.address if temporal else request.getfixturevalue("temporal_server")
        to_postgres = opened.enter_context(Proxy(postgres_port))
        to_temporal = opened.enter_context(Proxy(int(address.rpartition(":")[2])))
        queue = f"matrix-{uuid.uuid4().hex[:12]}"
        world = make_world(Engine.TEMPORAL, url, folder, queue, request, opened, TEMPORAL_ADDRESS=address)
        direct = urlsplit(url)
        account = direct.netloc.rpartition("@")[0]
        world.environment |= {
            "DATABASE_URL": direct._replace(netloc=f"{account}@{to_postgres.address}").geturl(),
            "TEMPORAL_ADDRESS": to_temporal.address,
        }
        yield Stage(
            world=world,
            postgres=postgres,
            temporal=temporal,
            to_postgres=to_postgres,
            to_temporal=to_temporal,
        )


@pytest.fixture
def stage(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Stage]:
    with _opened_stage(tmp_path, request, TEMPORAL, POSTGRES) as stage:
        yield stage


Away = tuple[Callable[[Stage], object], Callable[[Stage], object]]
OUTAGES: dict[str, Away] = {
    TEMPORAL: (lambda stage: stage.temporal.kill(), lambda stage: stage.temporal.start()),
    POSTGRES: (lambda stage: stage.postgres.stop(), lambda stage: stage.postgres.start()),
    "network to Temporal": (
        lambda stage: stage.to_temporal.freeze(),
        lambda stage: stage.to_temporal.thaw(),
    ),
    "network to Postgres": (
        lambda stage: stage.to_postgres.freeze(),
        lambda stage: stage.to_postgres.thaw(),
    ),
}


@dataclass(frozen=True, kw_only=True)
class Sent:
    """A job, or the first one of several, and how often the code that it stands for is to run."""

    result: Any
    note: str
    runs: int


def _send_what_is_in_it(world: World, seconds: float) -> dict[str, Sent]:
    """Send what becomes due in the outage, and what is retried in it."""
    due = seconds / 2

    def send(name: str, note: str, runs: int, *args: Any, **options: Any) -> Sent:
        return Sent(result=world.task(name).apply_async(args, **options), note=note, runs=runs)

    retried = {
        f"retried{kind}": send("retries_once", "retries_once", 2, due, **options)
        for kind, options in _WAYS.items()
    }
    for kind, each in retried.items():
        world.wait_for_status(each.result.id, "retrying")
        assert world.lines(each.result, each.note) == [""], kind
    dues = {
        f"due{kind}": send("add", "add", 1, 1, 2, countdown=due, **options) for kind, options in _WAYS.items()
    }
    return {**retried, **dues, "due early": send("early_add", "early_add", 1, 1, 2, countdown=due)}


_WAYS: dict[str, dict[str, Any]] = {"": {}, " light": {"temporal_light": True}}


#: How long it is away. Each is a run of its own, with all of OUTAGES beside each other: what is waited for is the same.
_SECONDS = [
    pytest.param(5, marks=pytest.mark.xdist_group("matrix-5")),
    pytest.param(40, marks=[pytest.mark.long, pytest.mark.xdist_group("matrix-40")]),
    pytest.param(130, marks=[pytest.mark.long, pytest.mark.xdist_group("matrix-130")]),
]


@pytest.fixture(scope="module", params=_SECONDS)
def borne(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Outcomes[str]:
    """Have all kinds of outages at once, each of a world of its own; gives what came of each."""
    seconds = float(request.param)
    with ExitStack() as opened:
        stages = {
            away: opened.enter_context(_opened_stage(tmp_path_factory.mktemp("matrix"), request, away))
            for away in OUTAGES
        }
        return had_beside_each_other(
            {away: partial(_bear, stage, OUTAGES[away], seconds) for away, stage in stages.items()}
        )


@pytest.mark.parametrize("away", list(OUTAGES))
@pytest.mark.timeout(600)
def test_each_job_runs_once_and_its_row_says_what_temporal_says(borne: Outcomes[str], away: str) -> None:
    borne.of(away)


def _bear(stage: Stage, outage: Away, seconds: float) -> None:
    world = stage.world
    world.app.set_current()  # of this thread
    worker = world.worker("-P", "prefork", "-c", str(len(KINDS) + 5))
    try:
        _bear_with(worker, stage, outage, seconds)
    except BaseException as error:
        error.add_note(worker.log())  # what is printed belongs to whichever test was the first
        raise


def _bear_with(worker: ManagedProcess, stage: Stage, outage: Away, seconds: float) -> None:
    world = stage.world
    following = {kind: send(world) for kind, (send, _, _) in KINDS.items()}
    held = {kind: world.task("hold").apply_async(**options) for kind, options in _WAYS.items()}
    early = world.task("hold_early").delay()
    for kind, result in following.items():
        wait_until(lambda: world.lines(_root(result), "first"), timeout=60, message=kind)  # noqa: B023
    for result in (*held.values(), early):
        wait_until(lambda: world.lines(result, "hold.pids"), timeout=60)  # noqa: B023
    inside = _send_what_is_in_it(world, seconds)
    leave, come_back = outage

    leave(stage)
    for result in following.values():
        world.release(_root(result))
    world.release(early)
    threading.Event().wait(seconds)  # what is to be borne
    come_back(stage)
    for result in held.values():
        world.release(result)

    _assert_all_ran(world, following, {**inside, **_as_sent(held, early)})
    assert worker.is_running
    _assert_workflows_are_as_rows(world, world.rows())
    assert_histories_replay(world.environment["TEMPORAL_ADDRESS"], world.task_queue)


def _as_sent(held: dict[str, Any], early: Any) -> dict[str, Sent]:
    kept = {f"held{kind}": Sent(result=result, note="hold.done", runs=1) for kind, result in held.items()}
    return {**kept, "held early": Sent(result=early, note="hold.done", runs=1)}


def _assert_all_ran(world: World, following: dict[str, Any], alone: dict[str, Sent]) -> None:
    wait_until(lambda: _all_ended(world), timeout=PATIENCE)
    ran = {kind: len(world.lines(sent.result, sent.note)) for kind, sent in alone.items()}
    assert ran == {kind: sent.runs for kind, sent in alone.items()}
    firsts = {
        kind: (len(world.lines(_root(result), "first")), len(world.lines(_root(result), "then")))
        for kind, result in following.items()
    }
    assert firsts == {kind: (1, KINDS[kind][1]) for kind in following}


def _all_ended(world: World) -> bool:
    left = world.rows("status <> 'completed'")
    assert not left, [(row["type"], row["status"], row["attempt"], row["error"]) for row in left]
    return True


#: What is sent, 25 of each kind; with what follows from it there are some 550 jobs, over a hundred between two breaks.
MANY = 250


@pytest.mark.long
@pytest.mark.timeout(600)
def test_whatever_is_killed_amid_a_mixture_all_end_right(stage: Stage) -> None:
    """None that was acknowledged runs again, and none that must not run twice does."""
    world = stage.world
    sent = [mixed_tasks.send(number) for number in range(MANY)]
    worker = world.worker("-P", "prefork", "-c", "4")

    def wait_for(share: float) -> None:
        wait_until(lambda: len(world.rows("completed_at IS NOT NULL")) > MANY * share, timeout=120, every=0.1)

    wait_for(0.2)
    os.kill(children_of(worker.pid)[0], signal.SIGKILL)
    wait_for(0.4)
    worker.kill()
    worker = world.worker("-P", "prefork", "-c", "4")
    wait_for(0.7)
    stage.temporal.kill()
    stage.temporal.start()
    wait_for(1.0)
    stage.postgres.stop()
    stage.postgres.start()

    wait_until(lambda: not world.rows("completed_at IS NULL"), timeout=240, every=0.2)
    assert worker.is_running
    rows = {str(row["job_id"]): row for row in world.rows()}
    assert {row["status"] for row in rows.values()} <= FINAL
    wrong = {number: why for number, each in enumerate(sent) if (why := _wrong(number, each, rows))}
    assert wrong == {}
    _assert_ledger(world, rows)
    _assert_workflows_are_as_rows(world, list(rows.values()))
    assert_histories_replay(world.environment["TEMPORAL_ADDRESS"], world.task_queue)


def _wrong(number: int, result: Any, rows: dict[str, Any]) -> str | None:
    """Say what is wrong with the end of one that was sent, if anything is."""
    if number % 10 in (3, 8):
        row = rows[str(result.id)]
        should = "failed" if number % 10 == 3 else "completed"
        return None if row["status"] == should else f"{row['status']}: {row['error']}"
    try:
        value = result.get(timeout=10)
    except Exception as error:
        # Which was running when its worker, or its process, was killed.
        is_lost = number % 10 == 2 and "WorkerLost" in repr(error)
        return None if is_lost else repr(error)
    return None if value == mixed_tasks.expected(number) else repr(value)


def _assert_ledger(world: World, rows: dict[str, Any]) -> None:
    runs: dict[str, list[float]] = {
        path.name.removeprefix("run."): [float(line) for line in path.read_text().splitlines()]
        for path in world.folder.glob("*/run.*")
    }
    again = {
        job_id: (times, rows[job_id]["completed_at"])
        for job_id, times in runs.items()
        if max(times) > rows[job_id]["completed_at"].timestamp()
    }
    assert again == {}, "they began after they had ended"
    more = {
        job_id: (rows[job_id]["type"], len(times), rows[job_id]["attempt"])
        for job_id, times in runs.items()
        if len(times) > (1 if rows[job_id]["type"] == "parity.mixed_early" else rows[job_id]["attempt"])
    }
    assert more == {}, "they ran more often than their rows say"
    ran = Counter(row["type"] for job_id, row in rows.items() if job_id in runs)
    assert ran == Counter(row["type"] for row in rows.values() if row["attempt"] > 0)


def _assert_workflows_are_as_rows(world: World, rows: list[dict[str, Any]]) -> None:
    told = {"completed": "COMPLETED", "failed": "FAILED"}
    should = {row["external_id"] or str(row["job_id"]): told[row["status"]] for row in rows}

    def is_so() -> bool:
        at_temporal = statuses_at_temporal(world.app, rows)
        assert at_temporal == should, {
            name: (status, should[name]) for name, status in at_temporal.items() if status != should[name]
        }
        return True

    wait_until(is_so, timeout=PATIENCE, every=1.0)
