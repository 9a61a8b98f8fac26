"""A schedule goes to the other engine, and is at one place at a time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

from jobbridge.core.keys import SYSTEM_TENANT, Engine
from jobbridge.temporal.schedules.mirror import TemporalSchedules
from tests.integration.cutover.conftest import TIMEOUT, Sides
from tests.support import wait_until


def in_temporal(sides: Sides) -> set[Any]:
    client = sides.app.delivery(Engine.TEMPORAL).client  # type: ignore[attr-defined]

    async def ours() -> set[Any]:
        temporal = TemporalSchedules(sides.app, await client.connected())
        return {told.schedule_id async for told in temporal.ours()}

    return set(client.submit(ours()).result(timeout=TIMEOUT))


def create(sides: Sides, name: str, when: Any, **options: Any) -> Any:
    data = {"kwargs": {"name": name}}
    return sides.app.schedules.create("cutover.run", when, data, name=name, **options).schedule_id


def fires(sides: Sides) -> list[dict[str, Any]]:
    return sides.looking.rows("SELECT * FROM job_schedule_fires ORDER BY fire_at")


def test_schedules_go_there_and_back_with_all_that_they_had(sides: Sides) -> None:
    often = create(sides, "often", timedelta(seconds=5), engine="celery", overlap="allow")
    daily = create(sides, "daily", "0 4 * * *", engine="celery", zone="Europe/Berlin")
    quiet = create(sides, "quiet", "*/5 * * * *", engine="celery")
    sides.app.schedules.pause("quiet", note="until Monday")
    other = create(sides, "other", "0 5 * * *", engine="celery", tenant="acme")
    before = {row.name: row for row in sides.app.schedules.list()}

    told = sides.moved("--to", "temporal", "--schedules", "--tenant", SYSTEM_TENANT)

    assert "3 schedule(s) went" in told
    rows = {row.name: row for row in sides.app.schedules.list()}
    assert {name: row.engine.value for name, row in rows.items()} == {
        "daily": "temporal", "often": "temporal", "quiet": "temporal", "other": "celery",
    }  # fmt: skip
    wait_until(lambda: in_temporal(sides) == {often, daily, quiet}, timeout=TIMEOUT)
    assert (rows["quiet"].paused, rows["quiet"].note) == (True, "until Monday")
    assert rows["daily"].next_fire_at == before["daily"].next_fire_at
    assert {row.due_at for name, row in rows.items() if name != "other"} == {None}

    sides.worker("temporal")
    wait_until(lambda: "often" in sides.ran(), timeout=TIMEOUT)
    sides.moved("--to", "celery", "--schedules")
    back = {row.name: row for row in sides.app.schedules.list()}
    assert {row.engine.value for row in back.values()} == {"celery"}
    assert (back["quiet"].paused, back["quiet"].note, back["quiet"].due_at) == (True, "until Monday", None)
    assert back["daily"].next_fire_at == back["daily"].due_at == before["daily"].next_fire_at
    wait_until(lambda: in_temporal(sides) == set(), timeout=TIMEOUT)
    assert other not in in_temporal(sides)

    ran = sides.ran()["often"]
    sides.worker("celery", "-B")
    wait_until(lambda: sides.ran()["often"] >= ran + 2, timeout=TIMEOUT)
    made = [fire for fire in fires(sides) if fire["outcome"] == "enqueued"]
    steps = {after["fire_at"] - one["fire_at"] for one, after in pairwise(made)}
    assert steps == {timedelta(seconds=5)}  # none lost, none doubled
    assert made[-1]["fire_at"] <= datetime.now(UTC)
