"""Jobs that were given up: their attempts; found by type and error, sent again, deleted."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

import tests.parity.dead_tasks  # noqa: F401  # the app has its tasks
from jobbridge.app.dead.letters import DeadFilter, Letter, groups, letters
from jobbridge.app.dead.purge import purge
from jobbridge.app.dead.redrive import Redriven, redrive
from jobbridge.cli import dead as dead_commands
from jobbridge.cli.root import run
from jobbridge.core.keys import TenantId
from jobbridge.store.workers.dead import clock
from tests.parity.conftest import World
from tests.support import wait_until


def _dead(world: World, number: int, tenant: str, **data: Any) -> list[str]:
    """Have jobs fail for good, and give their ids in the order in which they died."""
    sent = [
        world.app.enqueue("parity.dies", {"invoice": each, **data}, tenant=tenant) for each in range(number)
    ]
    _wait_until_all(world, [str(each.job_id) for each in sent], "failed", 1)
    died = world.rows("tenant = %s AND status = 'failed'", tenant)
    return [str(row["job_id"]) for row in sorted(died, key=lambda row: row["completed_at"])]


def _wait_until_all(world: World, ids: list[str], status: str, attempt: int) -> None:
    def reached() -> bool:
        rows = world.rows("job_id = ANY(%s::uuid[])", ids)
        assert {(row["status"], row["attempt"]) for row in rows} == {(status, attempt)}
        return True

    wait_until(reached, message=f"all are {status}")


@pytest.fixture
def tenant() -> TenantId:
    return TenantId(f"dead-{uuid.uuid4().hex[:8]}")


@pytest.mark.parametrize(
    ("errors", "attempts"),
    [
        (["runtime"], 2),
        (["value"], 1),
        (["aborted"], 4),
        (["reset"], 3),
        (["connection", "connection", "runtime"], 3),  # the last one's kind counts
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else str(value),
)
def test_attempts_go_by_the_kind_of_error(world: World, errors: list[str], attempts: int) -> None:
    result = world.task("by_kind").delay({"errors": errors})

    row = world.wait_for_status(result.id, "failed")
    assert (row["attempt"], row["max_attempts"]) == (attempts, 4)
    assert len(world.lines(result, "by_kind")) == attempts


def test_what_was_given_up_is_found_by_type_and_error(world: World, tenant: TenantId) -> None:
    ids = _dead(world, 3, tenant)
    _dead(world, 2, tenant, address="here")

    found = groups(world.app, DeadFilter(tenant=tenant))

    assert [(each.type, each.letters, list(each.engines)) for each in found.groups] == [
        ("parity.dies", 3, [world.engine]),
        ("parity.dies", 2, [world.engine]),
    ]
    assert (found.looked_at, found.is_cut) == (5, False)
    alike = list(letters(world.app, DeadFilter(tenant=tenant, group=found.groups[0].group)))
    assert sorted(each.id for each in alike) == sorted(ids)
    assert [each.died_at for each in alike] == sorted(each.died_at for each in alike)
    assert not list(letters(world.app, DeadFilter(tenant=tenant, type="parity.add")))
    assert groups(world.app, DeadFilter(tenant=tenant), limit=4).is_cut


def test_what_was_given_up_is_sent_again_at_a_rate_and_each_once_also_after_a_death(
    world: World, tenant: TenantId
) -> None:
    class ProcessDiedError(BaseException):
        """Nothing catches it, and nothing is tidied up."""

    def dies_after(number: int) -> Callable[[Letter, Redriven], None]:
        def told(letter: Letter, done: Redriven) -> None:
            if done.sent == number:
                raise ProcessDiedError

        return told

    ids, where = _dead(world, 6, tenant), DeadFilter(tenant=tenant)
    begun = time.monotonic()
    with pytest.raises(ProcessDiedError):
        redrive(world.app, where, rate=10, told=dies_after(3))
    assert time.monotonic() - begun >= 0.2  # three of them, a tenth of a second apart
    _wait_until_all(world, ids[:3], "failed", 2)  # they fail once more, and are dead again

    rest = redrive(world.app, where)

    assert (rest.goes_on, rest.sent, rest.passed, dict(rest.refused)) == (True, 3, 0, {})
    _wait_until_all(world, ids, "failed", 2)
    assert [len(world.lines(each, "dies")) for each in ids] == [2] * 6
    for each in ids:
        world.release(each, "mended")
    again = redrive(world.app, where)
    assert (again.goes_on, again.sent) == (False, 6)
    _wait_until_all(world, ids, "completed", 3)


def test_two_redrives_at_once_send_each_once(world: World, tenant: TenantId) -> None:
    ids = _dead(world, 4, tenant)
    other: list[Redriven] = []

    def told(letter: Letter, done: Redriven) -> None:
        if done.sent == 1 and not other:
            _wait_until_all(world, ids[:1], "failed", 2)
            other.append(redrive(world.app, DeadFilter(tenant=tenant, type="parity.dies")))
            _wait_until_all(world, ids[1:], "failed", 2)

    done = redrive(world.app, DeadFilter(tenant=tenant), told=told)

    # Three were sent by the other, and have died again: not a second time by this one.
    assert (done.sent, other[0].sent, done.passed + other[0].passed) == (1, 4, 3)
    _wait_until_all(world, ids[:1], "failed", 3)


def test_old_ones_are_purged_with_their_steps(world: World, tenant: TenantId) -> None:
    ids = _dead(world, 3, tenant)

    assert (
        purge(
            world.app, DeadFilter(tenant=tenant), died_before=clock(world.app.database) - timedelta(hours=1)
        )
        == 0
    )
    assert (
        purge(
            world.app,
            DeadFilter(tenant=tenant, ids=frozenset(ids[:2])),
            died_before=clock(world.app.database),
        )
        == 2
    )

    assert [str(row["job_id"]) for row in world.rows("tenant = %s", tenant)] == ids[2:]
    steps = world.looking.rows("SELECT job_id FROM job_details WHERE tenant = %s", (tenant,))
    assert {str(step["job_id"]) for step in steps} == set(ids[2:])


def test_the_commands_do_it(
    world: World, tenant: TenantId, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(dead_commands, "load_app", lambda name: world.app)

    def told(*arguments: str, code: int = 0) -> Any:
        assert run(["jobs", "dead", *arguments, "--json"]) == code
        return json.loads(capsys.readouterr().out)

    ids = _dead(world, 2, tenant)
    [group] = told("list", "--tenant", tenant)["groups"]
    assert (group["type"], group["letters"]) == ("parity.dies", 2)
    assert [each["id"] for each in told("list", "--group", group["group"], "--tenant", tenant)] == ids
    errors = {told("show", each)["error"] for each in ids}  # whichever ended first
    assert errors == {f"LookupError: invoice {number} has no address at all" for number in range(2)}
    assert told("show", group["group"])["group"] == group["group"]
    world.release(ids[0], "mended")
    assert told("retry", ids[0], "--rate", "50/s")["sent"] == 1
    world.wait_for_status(ids[0], "completed")
    assert told("purge", "--tenant", tenant, "--older-than", "0s", "--yes")["purged"] == 1

    assert run(["jobs", "dead", "retry"]) == 2  # which?
    assert run(["jobs", "dead", "retry", "--all", "--rate", "often"]) == 5
    assert run(["jobs", "dead", "show", ids[1]]) == 5
    assert run(["jobs", "dead", "list", "--tenant", tenant]) == 0
    assert "Nothing was given up." in capsys.readouterr().out
