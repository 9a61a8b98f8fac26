"""What may be sent, alike on both engines: ids, names, priorities, instants."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from celery import chain, group

from jobbridge import Outcome
from jobbridge.errors import UnsupportedOption
from tests.parity.conftest import World

ID = "5F8B5C6E-0000-4000-8000-0000000000AB"


def test_an_id_is_the_text_that_was_given_and_a_uuid_is_one_however_it_is_spelt(world: World) -> None:
    add = world.task("add")
    given = uuid.uuid4()
    spelt: list[Any] = [given, uuid.uuid4().hex, str(uuid.uuid4()).upper(), "order 17 ✓", "x" * 255]

    sent = [add.apply_async((1, 2), task_id=each) for each in spelt]

    assert [each.id for each in sent] == [str(each) for each in spelt]
    for each in sent:
        assert world.wait_for_status(each.id, "completed")["task_id"] == each.id
        assert world.app.AsyncResult(each.id).get(timeout=10) == 3
    assert world.app.AsyncResult(given).get(timeout=10) == 3
    waits = add.apply_async((1, 2), task_id=uuid.uuid4().hex, countdown=600)
    again = add.apply_async((1, 2), task_id=waits.id.upper(), countdown=600)
    assert again.job.outcome is Outcome.DEDUPLICATED
    assert again.job.key == waits.job.key


def test_a_uuid_in_a_canvas(world: World) -> None:
    add = world.task("add")
    first = uuid.uuid4()

    result = chain(add.s(1, 2).set(task_id=first), add.s(3)).apply_async()

    assert result.get(timeout=20) == 6
    assert world.row(str(first))["status"] == "completed"


#: What one engine, Postgres or the calendar could not keep.
REFUSED: list[dict[str, Any]] = [
    {"task_id": "x" * 3000},
    {"task_id": "a\x00b"},
    {"task_id": 7},
    {"queue": "a\x00b"},
    {"headers": {"x": "a\x00b"}},
    {"headers": {"x": [{"a\x00b": 1}]}},
    {"headers": {"x": "\ud800"}},
    {"shadow": "a\x00b"},
    {"priority": 10},
    {"priority": -1},
    {"priority": "high"},
    {"priority": True},
    {"eta": datetime(9999, 12, 31, 23, tzinfo=timezone(timedelta(hours=-14)))},
    {"eta": datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14)))},
    {"eta": "tomorrow"},
    {"expires": "never"},
    {"countdown": 1e12},
    {"countdown": float("nan")},
    {"expires": 1e300},
]


def test_what_cannot_be_kept_is_refused_before_anything_is_written(world: World) -> None:
    before, accepted = len(world.rows()), []
    for options in REFUSED:
        try:
            world.task("add").apply_async((1, 2), **options)
            accepted.append(options)
        except UnsupportedOption:
            pass
    assert accepted == []
    assert len(world.rows()) == before


def test_a_task_name_with_a_nul_is_refused(world: World) -> None:
    with pytest.raises(UnsupportedOption, match="NUL"):
        world.app.send_task("parity.add\x00")


def test_a_compression_that_nobody_knows_is_refused(world: World) -> None:
    before, add = len(world.rows()), world.task("add")

    for send in (
        lambda: add.apply_async([1, 1], compression="steam"),
        lambda: group(add.s(1, 1), add.s(1, 1).set(compression="steam")).apply_async(),
        lambda: world.app.send_task("parity.add", [1, 1], compression="steam", countdown=60),
    ):
        with pytest.raises(UnsupportedOption, match="steam"):
            send()

    assert len(world.rows()) == before
    assert add.apply_async([1, 1], compression="gzip").get(timeout=30) == 2


def test_naive_instants_are_utc(world: World) -> None:
    eta = (datetime.now(UTC) + timedelta(seconds=1.5)).replace(tzinfo=None)
    past = (datetime.now(UTC) - timedelta(hours=1)).replace(tzinfo=None)

    due = world.task("add").apply_async((1, 2), eta=eta)
    expired = world.task("add").apply_async((1, 2), expires=past)

    assert world.wait_for_status(due.id, "completed")["started_at"] >= eta.replace(tzinfo=UTC)
    assert world.wait_for_status(expired.id, "expired")["expires_at"] == past.replace(tzinfo=UTC)
