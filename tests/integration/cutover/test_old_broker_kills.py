"""A take-over is killed twenty times, from each kind of old broker: the counts are exact."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import amqp
import psycopg
import pytest
from celery import Celery

from tests.integration.cutover.conftest import TIMEOUT, Sides
from tests.integration.cutover.old_world import old_app
from tests.integration.cutover.test_from_old_brokers import remaining, send
from tests.rabbitmq_server import run_rabbitmq
from tests.redis_server import run_redis
from tests.support import wait_until

#: kombu's own models, with SQLAlchemy 2.1.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")

#: More pages than all kills can reach, three each; CUTOVER_JOBS=5000 has larger ones.
KILLS = 20
JOBS = int(os.environ.get("CUTOVER_JOBS", "1200"))
PAGE = JOBS // KILLS // 3
TAKING = "jobbridge.cutover.take_over:store_messages"


@contextmanager
def old_broker(kind: str, folder: Path, database_url: str) -> Iterator[str]:
    if kind == "sqla":
        yield f"sqla+{database_url.replace('postgresql://', 'postgresql+psycopg://')}"
        return
    with {"redis": run_redis, "amqp": run_rabbitmq}[kind](folder) as url:
        yield url


def left(kind: str, url: str, queue: str = "celery") -> int:
    """Count what the old broker still has."""
    if kind == "redis":
        return remaining(url)
    if kind == "amqp":
        host = url.rpartition("@")[2].rstrip("/")
        with amqp.Connection(host) as connection:
            return int(connection.channel().queue_declare(queue, passive=True).message_count)
    with psycopg.connect(url.replace("sqla+", "").replace("+psycopg", "")) as connection:
        [(count,)] = connection.execute("SELECT count(*) FROM kombu_message WHERE visible").fetchall()
        return int(count)


@pytest.fixture
def broker(request: pytest.FixtureRequest, tmp_path: Path, database_url: str) -> Iterator[tuple[str, str]]:
    with ExitStack() as opened:
        kind = str(request.param)
        yield kind, opened.enter_context(old_broker(kind, tmp_path, database_url))


@contextmanager
def old_project(kind: str, url: str) -> Iterator[Celery]:
    app = old_app(url, **({"task_queue_max_priority": 10} if kind == "amqp" else {}))
    yield app
    app.close()


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("broker", ["redis", "amqp", "sqla"], indirect=True)
def test_twenty_kills_lose_nothing_and_double_nothing(sides: Sides, broker: tuple[str, str]) -> None:
    kind, url = broker
    with old_project(kind, url) as app:
        sent = [send(app, f"job-{number}") for number in range(JOBS)]
    wait_until(lambda: left(kind, url) == JOBS, timeout=TIMEOUT)
    draw = random.Random(16)

    kills = 0
    while kills < KILLS:
        when = draw.choice(["", ":after"])
        # A page is a call: some die in it, before its commit; others after it, before it is removed there.
        point = f"{TAKING}:{draw.randint(1, 3)}{when}"
        if kills % 2:
            point = f"jobbridge.cutover.take_over:_TakeOver._store:{draw.randint(1, 3)}:after"
        killed = sides.cutover("--from", url, DIES_AT=point, PAGE=str(PAGE))
        wait_until(lambda dead=killed: not dead.is_running, timeout=TIMEOUT)
        assert killed.exit_code == 137, killed.log()
        kills += 1
        assert left(kind, url) + len(sides.rows()) >= JOBS

    sides.moved("--from", url, PAGE=str(PAGE))

    assert left(kind, url) == 0
    assert {row["task_id"] for row in sides.rows()} == set(sent)
    assert sides.messages() == JOBS
    sides.worker("celery", "-c", "4")
    sides.wait_until_all_ended(timeout=300)
    assert sides.ran() == {f"job-{number}": 1 for number in range(JOBS)}


@pytest.mark.long
@pytest.mark.parametrize("broker", ["amqp", "sqla"], indirect=True)
def test_all_that_it_has_is_taken_over(sides: Sides, broker: tuple[str, str]) -> None:
    kind, url = broker
    with old_project(kind, url) as app:
        plain = [send(app, f"plain-{number}") for number in range(120)]
        pickled = send(app, "pickled", serializer="pickle", compression="zlib")
        retried = send(app, "retried", 1.0, task="retry", retries=2)
        prior = send(app, "prior", priority=7)
    wait_until(lambda: left(kind, url) == 123, timeout=TIMEOUT)

    sides.moved("--from", url)

    assert left(kind, url) == 0
    assert len(sides.rows()) == sides.messages() == 123
    assert sides.row(retried)["attempt"] == 2
    assert sides.row(prior)["priority"] == 7
    sides.worker("celery")
    sides.wait_until_all_ended()
    ran = sides.ran()
    assert ran.pop("retried") == 2  # it is retried once more
    assert set(ran.values()) == {1}
    assert len(ran) == len(plain) + 2
    assert sides.row(pickled)["status"] == "completed"
