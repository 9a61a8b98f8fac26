"""What follows from an end waits for Postgres as long as the end does, on both engines."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
from celery import chain, chord, group

from jobbridge.core.keys import Engine
from jobbridge.store.schema.migrate import migrate
from tests.beside import MIGRATING, Outcomes, chosen, had_beside_each_other
from tests.outages import StoppablePostgres, stoppable_postgres
from tests.parity import canvas_tasks  # noqa: F401  (shared tasks, of every app)
from tests.parity.conftest import World, make_world
from tests.support import wait_until


@pytest.fixture
def server(server_folder: Path) -> Iterator[StoppablePostgres]:
    with stoppable_postgres(server_folder) as server:
        yield server


@pytest.fixture
def database_url(server: StoppablePostgres) -> str:
    return _migrated(server)


def _migrated(server: StoppablePostgres) -> str:
    url = server.server.create_database("following")
    with MIGRATING:
        migrate(url)
    return url


#: Per kind: how it is sent, how often `then` runs, and what the last job returns.
_Kind = tuple[Callable[[World], Any], int, Any]
KINDS: dict[str, _Kind] = {
    "chain": (lambda world: chain(world.task("first").s(), world.task("then").s()).delay(), 1, 1),
    "link": (lambda world: world.task("first").apply_async(link=world.task("then").s()), 1, 1),
    "chain that ignores": (
        lambda world: chain(world.task("first_ignored").s(), world.task("then").s()).delay(),
        1,
        1,
    ),
    "group": (
        lambda world: chain(
            world.task("first").s(), group(world.task("then").s(), world.task("then").s())
        ).delay(),
        2,
        [1, 1],
    ),
    "chord": (lambda world: chord([world.task("first").s()], world.task("then").s()).delay(), 1, [1]),
    "retry": (lambda world: world.task("later_retries").delay(), 1, "again"),
    "autoretry_for": (lambda world: world.task("later_retries_itself").delay(), 1, "again"),
    "handler": (lambda world: world.task("later_handled").delay({}), 1, "again"),
    "replace": (lambda world: world.task("later_replaced").delay(), 1, "replaced"),
    "replace by a chain": (lambda world: world.task("later_a_chain").delay(), 1, "chained"),
    "fan-out": (lambda world: world.task("later_a_parent").delay({}), 2, None),
}


def _root(result: Any) -> str:
    node = result
    while getattr(node, "parent", None) is not None:
        node = node.parent
    if hasattr(node, "results"):
        node = node.results[0]
    return str(node.id)


def _sent_and_running(world: World) -> dict[str, Any]:
    world.worker("-P", "prefork", "-c", str(len(KINDS) + 1))
    sent = {kind: send(world) for kind, (send, _, _) in KINDS.items()}
    for kind, result in sent.items():
        wait_until(lambda: world.lines(_root(result), "first"), timeout=60, message=kind)  # noqa: B023
    return sent


def _assert_all_went_on(world: World, sent: dict[str, Any]) -> None:
    problems = {}
    for kind, result in sent.items():
        _, times, expected = KINDS[kind]
        root = _root(result)
        try:
            value = result.get(timeout=40)
            wait_until(lambda: len(world.lines(root, "then")) >= times, timeout=40)  # noqa: B023
        except Exception as error:
            problems[kind] = repr(error)
            continue
        if expected is not None and value != expected:
            problems[kind] = repr(value)
        ran = (len(world.lines(root, "first")), len(world.lines(root, "then")))
        if ran != (1, times):
            problems[kind] = f"first and then ran {ran} times"
    assert problems == {}
    wait_until(lambda: not world.rows("completed_at IS NULL"), timeout=40)
    assert {row["status"] for row in world.rows()} == {"completed"}


@pytest.fixture(scope="module")
def away(
    request: pytest.FixtureRequest, server_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Outcomes[tuple[object, ...]]:
    """Have Postgres away for each engine and each time, beside each other."""

    def bear(engine: Engine, seconds: float) -> None:
        with ExitStack() as opened:
            server = opened.enter_context(stoppable_postgres(server_folder))
            world = make_world(
                engine, _migrated(server), tmp_path_factory.mktemp("away"), f"away-{uuid.uuid4().hex[:8]}",
                request, opened,
            )  # fmt: skip
            world.app.set_current()  # of this thread
            _bear(world, server, seconds)

    cases = chosen(request, "engine", "seconds")
    request.getfixturevalue("temporal_server")  # not for the first time in a thread
    return had_beside_each_other({case: partial(bear, *case) for case in cases})


@pytest.mark.xdist_group("following")
@pytest.mark.parametrize("seconds", [5, pytest.param(40, marks=pytest.mark.long)])
@pytest.mark.timeout(300)
def test_postgres_is_away_when_it_is_sent(
    away: Outcomes[tuple[object, ...]], engine: Engine, seconds: float
) -> None:
    away.of((engine, seconds))


def _bear(world: World, server: StoppablePostgres, seconds: float) -> None:
    sent = _sent_and_running(world)
    server.stop()

    for result in sent.values():
        world.release(_root(result))
    threading.Event().wait(seconds)  # what is to be borne
    server.start()

    _assert_all_went_on(world, sent)


@pytest.mark.timeout(300)
def test_the_connections_were_cut_while_they_were_idle(own_world: World) -> None:
    sent = _sent_and_running(own_world)
    with psycopg.connect(own_world.database_url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name LIKE 'jobbridge worker % jobs'"
        )

    for result in sent.values():
        own_world.release(_root(result))

    _assert_all_went_on(own_world, sent)
