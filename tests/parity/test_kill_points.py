"""Workers are killed between the writes of what follows from an end: each job runs its number of times, every row ends.

An end and what follows from it are one transaction, so there are two points: in it (a lock on the job's row stops it
after what follows was written and before the end, or before both), and after it, when the message is not acknowledged
(the worker's parent is stopped). At each the child, the parent, or both die.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
import pytest
from celery import chord, group

from jobbridge.core.keys import Engine, job_id_for
from jobbridge.dev.process import ManagedProcess
from tests.beside import Outcomes, chosen
from tests.parity.conftest import World, had_in_worlds
from tests.parity.test_following import KINDS, _Kind, _root
from tests.support import children_of, wait_until

_ALL: dict[str, _Kind] = KINDS | {
    "chord into a group": (
        lambda world: chord(
            [world.task("first").s(), world.task("one").s()],
            group(world.task("then").s(), world.task("then").s()),
        ).delay(),
        2,
        [[1, 1], [1, 1]],
    ),
    # Its body is sent by the part that ends last, and what that sends has its root.
    "chord that ends with its other part": (
        lambda world: chord(
            [world.task("first").s(), world.task("one").s().set(countdown=6)],
            group(world.task("then").s(), world.task("then").s()),
        ).delay(),
        2,
        [[1, 1], [1, 1]],
    ),
}


def _kill(*pids: int) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _sent_and_running(world: World) -> tuple[ManagedProcess, dict[str, Any]]:
    worker = world.worker("-P", "prefork", "-c", str(len(_ALL) + 1))
    sent = {kind: send(world) for kind, (send, _, _) in _ALL.items()}
    for kind, result in sent.items():
        wait_until(lambda: world.lines(_root(result), "first"), timeout=60, message=kind)  # noqa: B023
    return worker, sent


@contextmanager
def _ends_are_held_up(world: World, ids: list[Any]) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(world.database_url) as holder:
        holder.execute("SELECT FROM jobs WHERE job_id = ANY(%s) FOR UPDATE", [ids])
        yield holder
        holder.rollback()


_BLOCKED = (
    "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    " AND application_name NOT LIKE '%%settlements'"
)


def _then(world: World, root: str, result: Any) -> list[str]:
    """Give the notes of what followed.

    What nobody's run sent (a chord's body, its members) is a root of its own; what a part sent has that part's root,
    and any of a chord's parts may be the last to end.
    """
    roots, node = {root}, result
    while node is not None:
        roots |= {str(node.id), *(str(each.id) for each in getattr(node, "results", None) or ())}
        node = node.parent
    return [line for each in roots for line in world.lines(each, "then")]


#: What is run again after its process died has the next attempt's number, and does not begin as the first one does.
_SKIPS_ITS_BEGIN = {"handler"}


def _assert_all_ended(world: World, sent: dict[str, Any], first: set[int]) -> None:
    problems = {}
    for kind, result in sent.items():
        _, times, expected = _ALL[kind]
        root = _root(result)
        try:
            value = result.get(timeout=60)
            wait_until(lambda: len(_then(world, root, result)) >= times, timeout=120)  # noqa: B023
        except Exception as error:
            problems[kind] = repr(error)
            continue
        if expected is not None and value != expected:
            problems[kind] = repr(value)
        ran = (len(world.lines(root, "first")), len(_then(world, root, result)))
        if ran[0] not in (first if kind not in _SKIPS_ITS_BEGIN else {1}) or ran[1] != times:
            problems[kind] = f"first and then ran {ran} times"
    assert problems == {}
    wait_until(lambda: not world.rows("completed_at IS NULL"), timeout=120)
    assert {row["status"] for row in world.rows()} == {"completed"}
    assert world.looking.rows("SELECT chord_id FROM job_chords") == []
    assert world.looking.rows("SELECT id FROM jobbridge_broker.dead_letters") == []


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(each, id=each, marks=pytest.mark.xdist_group(f"kill-points-{each}")) for each in Engine
    ],
)
def engine(request: pytest.FixtureRequest) -> Engine:
    return Engine(request.param)


_BEFORE, _AFTERWARDS = ("child", "parent", "both"), "all"


@pytest.fixture(scope="module")
def killed(request: pytest.FixtureRequest, engine: Engine) -> Outcomes[object]:
    """Have all die at once: most of their time they wait until the dead are missed."""
    cases = {dies for (dies,) in chosen(request, "dies")}
    return had_in_worlds(request, engine, cases, _have_die)


def _have_die(world: World, who: Any) -> None:
    have_die_afterwards(world) if who == _AFTERWARDS else _have_die_before(world, who)


@pytest.mark.long
@pytest.mark.parametrize("dies", _BEFORE)
@pytest.mark.timeout(300)
def test_it_dies_before_the_end_is_written(killed: Outcomes[object], dies: str) -> None:
    killed.of(dies)


@pytest.mark.parametrize("dies", [_AFTERWARDS])
@pytest.mark.timeout(300)
def test_it_dies_after_the_end_is_written_and_before_it_is_acknowledged(
    killed: Outcomes[object], dies: str
) -> None:
    killed.of(dies)


def _have_die_before(own_world: World, dies: str) -> None:
    worker, sent = _sent_and_running(own_world)
    ids = [job_id_for(_root(result)) for result in sent.values()]
    children = children_of(worker.pid)

    with _ends_are_held_up(own_world, ids):
        for result in sent.values():
            own_world.release(_root(result))
        wait_until(lambda: len(own_world.looking.rows(_BLOCKED)) >= len(sent), timeout=60)
        if dies != "child":
            _kill(worker.pid)
        if dies != "parent":
            _kill(*children)
            # Else the server would write the end once the lock is free: it has not heard that its client is gone.
            own_world.looking.rows(f"SELECT pg_terminate_backend(pid) FROM ({_BLOCKED}) AS blocked")
    if dies != "child":
        own_world.worker("-P", "prefork", "-c", str(len(sent) + 1))

    _assert_all_ended(own_world, sent, {1, 2} if dies == "parent" else {2})


def have_die_afterwards(own_world: World) -> None:
    """Have worker and children die when all ends are written, and see that nothing runs again."""
    worker, sent = _sent_and_running(own_world)
    children = children_of(worker.pid)
    before = {row["job_id"]: row["delivery"] for row in own_world.rows("status = 'processing'")}
    os.kill(worker.pid, signal.SIGSTOP)

    for result in sent.values():
        own_world.release(_root(result))
    for result in sent.values():
        wait_until(lambda: _has_moved_on(own_world.row(_root(result)), before), timeout=60)  # noqa: B023
    _kill(worker.pid, *children)
    own_world.worker("-P", "prefork", "-c", str(len(sent) + 1))

    _assert_all_ended(own_world, sent, {1})


def _has_moved_on(row: dict[str, Any], before: dict[Any, Any]) -> bool:
    return row["status"] == "completed" or row["delivery"] != before[row["job_id"]]
