"""What waits at an old broker becomes jobs here: all of it, once, with all that it had."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery, chain, chord

from tests.integration.cutover.conftest import TIMEOUT, Sides
from tests.integration.cutover.old_world import old_app
from tests.redis_server import run_redis
from tests.support import wait_until

LATER = timedelta(hours=5)


@pytest.fixture
def redis_url(tmp_path: Path) -> Iterator[str]:
    with run_redis(tmp_path) as url:
        yield url


@pytest.fixture
def old(redis_url: str) -> Iterator[Celery]:
    app = old_app(redis_url)
    yield app
    app.close()


def send(app: Celery, name: str, *args: Any, task: str = "run", **options: Any) -> str:
    return str(app.tasks[f"cutover.{task}"].apply_async((name, *args), **options).id)


def test_all_that_redis_has_is_taken_over_once(sides: Sides, old: Celery, redis_url: str) -> None:
    plain = [send(old, f"plain-{number}") for number in range(120)]
    prior = [send(old, f"prior-{number}", priority=number) for number in (3, 6, 9)]
    elsewhere = send(old, "elsewhere", queue="reports")
    pickled = send(old, "pickled", serializer="pickle", compression="zlib")
    later = send(old, "later", eta=datetime.now(UTC) + LATER)
    expiring = send(old, "expiring", expires=3600)
    retried = send(old, "retried", 1.0, task="retry", retries=2)
    run, follow = old.tasks["cutover.run"], old.tasks["cutover.follow"]
    chain(run.s("one"), follow.s("two")).apply_async()
    held = hold(old, redis_url)
    with redis.Redis.from_url(redis_url) as client:
        client.rpush("celery", "no message at all")

    told = sides.moved("--from", redis_url, "--json", code=1)

    report = json.JSONDecoder().raw_decode(told, told.index("{"))[0]
    assert sum(report["moved"].values()) == len(sides.rows()) == len(plain) + len(prior) + 6 + 1
    assert sides.messages() == len(sides.rows())
    assert report["problems"] == ["1 message(s) were left where they are."]
    assert remaining(redis_url) == 1
    assert sides.row(held)["status"] == "queued"
    assert sides.row(later)["run_at"] - datetime.now(UTC) > LATER - timedelta(minutes=5)
    assert sides.row(expiring)["expires_at"] > datetime.now(UTC)
    assert (sides.row(retried)["status"], sides.row(retried)["attempt"]) == ("retrying", 2)
    assert [sides.row(each)["priority"] for each in prior] == [3, 6, 9]

    sides.worker("celery", "-Q", "celery,reports,held")
    for task_id in (*plain, *prior, elsewhere, pickled, expiring, held, retried):
        sides.wait_for_status(task_id, "completed")
    wait_until(lambda: "two" in sides.ran(), timeout=TIMEOUT)
    ran = sides.ran()
    assert (ran.pop("retried"), sides.row(retried)["attempt"]) == (2, 4)
    assert set(ran.values()) == {1}
    assert len(ran) == len(plain) + len(prior) + 6


def test_a_chord_that_was_under_way_is_named(sides: Sides, redis_url: str) -> None:
    old = old_app(redis_url, result_backend=redis_url)
    parts = [old.tasks["cutover.run"].s(f"part-{number}") for number in range(3)]
    chord(parts)(old.tasks["cutover.gather"].s("body"))
    old.backend.result_consumer.subscribed_to.clear()  # else results unsubscribe when they go, and Redis may be gone
    old.backend.result_consumer.stop()
    old.backend.client.connection_pool.disconnect()
    old.close()

    told = sides.moved("--from", redis_url)

    assert "was under way: 3 of its parts are here" in told
    assert "'cutover.gather' does not follow" in told
    assert len(sides.rows()) == 3


def test_a_second_take_over_finds_what_the_first_had_stored(
    sides: Sides, old: Celery, redis_url: str
) -> None:
    sent = [send(old, f"job-{number}") for number in range(250)]

    killed = sides.cutover("--from", redis_url, DIES_AT="jobbridge.cutover.take_over:store_messages:2")
    wait_until(lambda: not killed.is_running, timeout=TIMEOUT)
    assert (len(sides.rows()), remaining(redis_url)) == (100, 150)  # before the second page's commit
    killed = sides.cutover(
        "--from", redis_url, DIES_AT="jobbridge.cutover.sources.redis:RedisSource.remove:1"
    )
    wait_until(lambda: not killed.is_running, timeout=TIMEOUT)
    assert (len(sides.rows()), remaining(redis_url)) == (200, 150)  # after it, and not removed

    sides.moved("--from", redis_url)

    assert remaining(redis_url) == 0
    assert {row["task_id"] for row in sides.rows()} == set(sent)
    assert sides.messages() == len(sent)


def test_a_broker_that_workers_serve_is_left_alone(sides: Sides, old: Celery, redis_url: str) -> None:
    send(old, "once")
    with redis.Redis.from_url(redis_url).pubsub() as worker:
        worker.subscribe("/0.celery.pidbox")
        wait_until(lambda: worker.get_message(timeout=1), timeout=TIMEOUT)

        told = sides.moved("--from", redis_url, code=3)

    assert "consume from the old broker" in told
    assert (len(sides.rows()), remaining(redis_url)) == (0, 1)


def test_what_cannot_be_read_is_refused_by_its_name(sides: Sides) -> None:
    assert "sqs://" in sides.moved("--from", "sqs://", code=5)


def hold(app: Celery, url: str) -> str:
    """Have a consumer take a message, and die with it."""
    task_id = send(app, "held", queue="held")
    with app.connection_for_read() as connection:
        channel = connection.channel()
        channel.queue_declare("held")
        message = channel.basic_get("held")
        assert message.headers["id"] == task_id
        channel.qos.restore_at_shutdown = False
        channel._qos._delivered.clear()  # as if it had been killed
    return task_id


def remaining(url: str) -> int:
    """Count what Redis still has."""
    with redis.Redis.from_url(url) as client:
        lists = [key for key in client.scan_iter() if client.type(key) == b"list"]
        return sum(client.llen(key) for key in lists) + client.hlen("unacked")
