"""What is too large is refused where it is sent, with its size, and leaves nothing; a result that is, ends its job."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from celery import chain
from kombu.exceptions import EncodeError

from jobbridge.core.keys import Engine
from jobbridge.dev.postgres import PostgresServer
from jobbridge.errors import PayloadTooLarge
from tests.parity import size_tasks  # noqa: F401  (its tasks are the app's)
from tests.parity.conftest import World, make_world

LIMIT = 300_000


@pytest.fixture(scope="module", params=[Engine.CELERY, Engine.TEMPORAL], ids=str)
def limited(
    request: pytest.FixtureRequest,
    postgres: PostgresServer,
    migrated_template: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[World]:
    """A world whose messages and results have 0.3 MB at most, with one worker."""
    engine = Engine(request.param)
    folder = tmp_path_factory.mktemp(f"limited-{engine}")
    url = postgres.create_database(f"limited_{engine}", template=migrated_template)
    with ExitStack() as started:
        world = make_world(
            engine, url, folder, f"limited-{engine}", request, started, JOB_RUNNER_PAYLOAD_LIMIT_MB="0.3"
        )
        world.worker("-P", "prefork")
        yield world


def count(world: World) -> int:
    stored = "SELECT count(*) + (SELECT count(*) FROM jobbridge_broker.messages) AS number FROM jobs"
    return int(world.looking.rows(stored)[0]["number"])


def test_a_message_that_is_too_large_is_refused_with_its_size_and_leaves_nothing(limited: World) -> None:
    length = limited.task("length")
    assert length.delay("x" * 200_000).get(timeout=60) == 200_000
    limited.wait_until_no_message()
    before, large = count(limited), "x" * LIMIT

    ways = {
        "delay": lambda: length.delay(large),
        "to a queue that is new": lambda: length.apply_async((large,), queue="another"),
        "with a singleton key": lambda: length.apply_async((large,), singleton_key="one"),
        "by its name": lambda: limited.app.send_task("parity.length", kwargs={"text": large}),
        "in its links": lambda: length.apply_async(("",), link=length.si(large)),
        "in a chain": lambda: chain(length.s(""), length.si(large)).delay(),
        "in a header": lambda: length.apply_async(("",), headers={"note": large}),
        "pickled": lambda: length.apply_async((large,), serializer="pickle"),
    }
    if limited.engine is Engine.CELERY:
        ways["without a row"] = lambda: length.apply_async((large,), track=False)
        ways["without a row, to a new queue"] = lambda: length.apply_async(
            (large,), track=False, queue="third"
        )
    for way, send in ways.items():
        with pytest.raises(
            PayloadTooLarge, match=r"0\.3.* MB, and JOB_RUNNER_PAYLOAD_LIMIT_MB allows 0\.3 MB"
        ) as told:
            send()
        assert told.value.size > told.value.limit == LIMIT, way
        assert isinstance(told.value, EncodeError), way
        assert count(limited) == before, way


def test_many_that_are_sent_together_are_refused_with_the_one_that_is_too_large(limited: World) -> None:
    length, before = limited.task("length"), count(limited)

    with limited.app.bulk():
        length.delay("first")
        with pytest.raises(PayloadTooLarge):
            length.delay("x" * LIMIT)

    assert count(limited) > before  # the block goes on with the others, as its author wants
    before = count(limited)

    def send_all() -> None:
        with limited.app.bulk():
            for size in (1, LIMIT, 2):
                length.delay("x" * size)

    with pytest.raises(PayloadTooLarge):
        send_all()

    assert count(limited) == before


def test_a_result_that_is_too_large_fails_its_job_and_says_why(limited: World) -> None:
    sent = limited.task("returns_much").delay(LIMIT)

    with pytest.raises(PayloadTooLarge, match=r"The result of 'parity\.returns_much' is 0\.3"):
        sent.get(timeout=60)
    row = limited.wait_for_status(sent.id, "failed")
    assert row["attempt"] == 1
    assert "JOB_RUNNER_PAYLOAD_LIMIT_MB" in row["error"]
    assert limited.task("returns_much").delay(200_000).get(timeout=60) == "x" * 200_000


def test_what_is_to_follow_a_result_that_is_too_large_does_not_run(limited: World) -> None:
    sent = chain(limited.task("returns_much").s(LIMIT), limited.task("length").s()).delay()

    limited.wait_for_status(sent.parent.id, "failed")
    with pytest.raises(PayloadTooLarge):
        sent.get(timeout=60)


def test_a_state_that_is_too_large_is_refused_to_its_task(limited: World) -> None:
    assert "The state 'HALFWAY'" in limited.task("says_much").delay(LIMIT).get(timeout=60)


@pytest.mark.parametrize("is_result_ignored", [False, True])
def test_an_error_that_is_too_large_is_cut_and_says_its_size(limited: World, is_result_ignored: bool) -> None:
    task, told = limited.task("raises_much"), r"x … \(cut: it is 0\.6\d* MB, and 0\.3 MB are allowed\)"
    sent = task.apply_async((2 * LIMIT,), ignore_result=is_result_ignored)

    row = limited.wait_for_status(sent.id, "failed")
    assert row["error"].startswith("ValueError: xxx")
    assert re.search(told, row["error"])
    assert re.search(told, row["traceback"])
    assert "in raises_much" in row["traceback"]
    held = "SELECT octet_length(jobs::text) AS size FROM jobs WHERE job_id = %s"
    assert limited.looking.rows(held, [sent.id])[0]["size"] < LIMIT
    if not is_result_ignored:
        with pytest.raises(ValueError, match=told):
            sent.get(timeout=60)


def test_a_schedule_whose_jobs_could_not_be_sent_is_refused(limited: World) -> None:
    told = r"A message of the schedule 'large' is 0\.303.* MB, and JOB_RUNNER_PAYLOAD_LIMIT_MB allows 0\.3 MB"
    with pytest.raises(PayloadTooLarge, match=told):
        limited.app.schedules.create("parity.length", "1 hour", {"text": "x" * LIMIT}, name="large")
    made = limited.app.schedules.create("parity.length", "1 hour", {"text": "x"}, name="large")
    with pytest.raises(PayloadTooLarge, match=told):
        limited.app.schedules.update(made.schedule_id, args=["x" * LIMIT], kwargs={})
    limited.app.schedules.delete(made.schedule_id)

    limited.app.conf.beat_schedule = {
        "large": {"task": "parity.length", "schedule": 3600.0, "args": ["x" * LIMIT]},
        "small": {"task": "parity.length", "schedule": 3600.0, "args": ["x"]},
    }
    [refused] = limited.app.schedules.refused()
    assert re.search(told, refused)
