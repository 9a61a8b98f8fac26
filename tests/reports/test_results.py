"""What users of Celery saw of errors and odd values. Each test says where they told it, and what is right."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest
from celery import states

from jobbridge.core.keys import Engine
from jobbridge.temporal.reconcile.inspect import look_at
from tests.parity.conftest import World
from tests.reports.tasks import IMPOSSIBLE, ODD, Unshown
from tests.support import wait_until

TIMEOUT = 30


def task(world: World, name: str) -> Any:
    return world.app.tasks[f"reports.{name}"]


def ended(world: World, result: Any) -> dict[str, Any]:
    def has() -> dict[str, Any]:
        row = world.row(result.id)
        assert row["status"] in ("completed", "failed"), row["status"]
        return row

    return wait_until(has, timeout=TIMEOUT)


def status_at_temporal(world: World, result: Any) -> str | None:
    facts = look_at(world.app, result.id, "celery")
    return None if facts is None else facts.status


def test_an_exception_that_cannot_be_unpickled_ends_the_worker(world: World) -> None:
    """https://github.com/celery/celery/issues/6990: the task fails with its name and text; a retry with it goes on."""
    failed, retried = (
        task(world, "raises_two_arguments").delay(),
        task(world, "retries_two_arguments").delay(),
    )

    assert retried.get(timeout=TIMEOUT) == "done"
    with pytest.raises(Exception, match="hello"):
        failed.get(timeout=TIMEOUT)
    row = world.row(failed.id)
    assert (row["status"], row["attempt"]) == ("failed", 1)
    assert "TwoArgumentsError" in row["error"]


def test_a_result_or_an_error_that_cannot_be_serialized_stays_pending(world: World) -> None:
    """https://github.com/celery/celery/pull/4864: both are failures, after one attempt, and the error says which."""
    by_value, by_error = (
        task(world, "returns_unserializable").delay(),
        task(world, "raises_unserializable").delay(),
    )

    for each in (by_value, by_error):
        row = ended(world, each)
        assert (row["status"], row["attempt"], each.state) == ("failed", 1, states.FAILURE)
    with pytest.raises(Exception, match="Unserializable"):  # what Celery makes of what cannot be pickled
        by_error.get(timeout=TIMEOUT)


@pytest.mark.parametrize("kind", list(IMPOSSIBLE))
def test_a_result_that_no_serializer_takes_leaves_the_task_without_an_end(world: World, kind: str) -> None:
    """https://github.com/celery/celery/issues/3604, 5327: a failure, after one attempt; what is deep, shown or not."""
    last = (task(world, "returns_impossible").s(kind) | task(world, "identity").s()).delay()
    result = last.parent

    row = ended(world, result)
    assert (row["status"], row["attempt"], result.state) == ("failed", 1, states.FAILURE)
    assert "EncodeError" in row["error"]
    assert len(world.lines(result, "returns_impossible")) == 1
    world.wait_for_status(last.id, "failed")  # what was to follow fails with it


def test_an_error_that_cannot_be_shown_ends_the_worker(world: World) -> None:
    """https://github.com/celery/celery/issues/175, 245, 615: a failure of its class, after one attempt."""
    rude, recursive = task(world, "raises_rude").delay(), task(world, "recurses").delay()

    for each, name in ((rude, "Rude"), (recursive, "RecursionError")):
        row = ended(world, each)
        assert (row["status"], row["attempt"], each.state) == ("failed", 1, states.FAILURE)
        assert name in row["error"]


def test_an_argument_that_cannot_be_shown_ends_the_worker(world: World) -> None:
    """https://github.com/celery/celery/issues/298: Celery shows arguments where they are sent; who sends is told."""
    with pytest.raises(RuntimeError, match="no text"):
        world.app.tasks["parity.takes"].apply_async([Unshown()], serializer="pickle")

    assert task(world, "identity").delay(1).get(timeout=TIMEOUT) == 1


@pytest.mark.parametrize("kind", ["cancelled", "base", "generator", "group", "base group"])
def test_a_task_that_raises_no_exception_of_the_usual_kind_never_ends(world: World, kind: str) -> None:
    """https://github.com/celery/celery/pull/10672: it fails, with what it raised, after one attempt.

    asyncio.CancelledError, and whatever else is a BaseException and no Exception; exception groups.
    """
    result = task(world, "raises").delay(kind)

    row = ended(world, result)
    assert (row["status"], row["attempt"]) == ("failed", 1), row["error"]
    assert len(world.lines(result, "raises")) == 1
    assert result.state == states.FAILURE
    if kind == "cancelled":
        assert isinstance(result.result, asyncio.CancelledError)


@pytest.mark.parametrize("kind", list(ODD))
def test_a_value_that_postgres_does_not_read_is_lost(world: World, kind: str) -> None:
    """https://github.com/cybertec-postgresql/pgwatch/pull/395 (NaN): the caller gets what Celery's JSON gives.

    NaN and infinities are no JSON, NUL and halves of characters no text of Postgres'. Celery's own backends store text
    and give all of it back; keys that are numbers become text there, too.
    """
    result = task(world, "returns").delay(kind)

    row = ended(world, result)
    assert row["status"] == "completed", row["error"]
    given, value = result.get(timeout=TIMEOUT), ODD[kind]
    if kind == "nan":
        assert math.isnan(given)
    elif kind == "deep":
        assert math.isnan(given["values"][1])
        assert given["by"] == {"x": math.inf}
    elif kind == "numbers as keys":
        assert given == {"1": "one"}
    else:
        assert given == value


@pytest.mark.parametrize("kind", ["nan", "surrogate", "nul"])
def test_a_state_or_an_error_that_postgres_does_not_read_is_lost(world: World, kind: str) -> None:
    """As above: a task's own state is told, and an error fails its job after one attempt."""
    failed = [task(world, "says").delay(kind), task(world, "says").delay(kind, is_plain=True)]
    told = task(world, "progresses").delay(kind)

    for each in failed:
        row = ended(world, each)
        assert (row["status"], row["attempt"], each.state) == ("failed", 1, states.FAILURE)
        assert "ValueError: " in row["error"]
        if world.engine is Engine.TEMPORAL:  # it knows, too, and does not hand it out again
            wait_until(lambda each=each: status_at_temporal(world, each) == "FAILED")
    wait_until(lambda: world.lines(told, "progresses"), timeout=TIMEOUT)
    assert told.state == "PROGRESS"
    assert repr(told.info["value"]) == repr(ODD[kind])
    world.release(told)
    assert told.get(timeout=TIMEOUT) == "done"


@pytest.mark.parametrize("kind", ["nan", "nul", "large", "bytes"])
def test_an_argument_that_postgres_does_not_read_cannot_be_sent(world: World, kind: str) -> None:
    """As above, for what is sent: the task gets what was sent, and so does the next link."""
    identity = task(world, "identity")

    result = (identity.s(ODD[kind]) | identity.s()).delay()

    assert repr(result.get(timeout=TIMEOUT)) == repr(ODD[kind])
