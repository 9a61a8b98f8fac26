"""Rules across the fleet: what they hold waits in the database, costs no worker, and starts when it may."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest

from jobbridge.app.publish.rules.run_time import run_time_rules
from jobbridge.core.rules.limits import Per, RuleKind, concurrency_rules
from jobbridge.diagnosis.explain import explain
from jobbridge.errors import UnsupportedOption
from jobbridge.store.rules.fleet import RuleStore
from tests.parity.conftest import World
from tests.parity.rules_tasks import let_go
from tests.support import wait_until

TIMEOUT = 30


def begun(world: World, results: list[Any]) -> list[str]:
    return [result.id for result in results if world.lines(result, "begun")]


def test_a_job_begins_when_another_of_its_task_has_ended(world: World) -> None:
    results = [world.task("two_at_once").delay(str(number)) for number in range(3)]
    wait_until(lambda: len(begun(world, results)) == 2, timeout=TIMEOUT)
    assert begun(world, results) == [results[0].id, results[1].id]
    assert world.row(results[2].id)["started_at"] is None

    let_go(world, results[0])
    assert results[0].get(timeout=TIMEOUT) == "0"
    wait_until(lambda: begun(world, results) == [result.id for result in results], timeout=TIMEOUT)

    ended, started = world.row(results[0].id)["completed_at"], world.row(results[2].id)["started_at"]
    assert started > ended
    for result in results[1:]:
        let_go(world, result)
        result.get(timeout=TIMEOUT)


def test_what_a_rule_holds_costs_no_worker(world: World) -> None:
    results = [world.task("per_customer").delay("a", number) for number in range(20)]
    wait_until(lambda: begun(world, results), timeout=TIMEOUT)

    assert world.task("add").delay(1, 2).get(timeout=TIMEOUT) == 3  # by its other process
    assert begun(world, results) == [results[0].id]
    for result in results:
        let_go(world, result)
    assert [result.get(timeout=TIMEOUT) for result in results] == ["a"] * 20


def test_explain_names_the_rule_that_holds_a_job(world: World) -> None:
    results = [world.task("per_customer").delay("told", number) for number in range(3)]
    wait_until(lambda: begun(world, results), timeout=TIMEOUT)

    job = world.app.jobs.find(UUID(results[2].id))
    assert job is not None
    reasons = explain(world.app, job).reasons
    assert [reason.code for reason in reasons] == ["held"]
    assert "'concurrency tenant 00000000-0000-0000-0000-000000000000 key told' holds it" in reasons[0].what
    assert "1 at once, 1 have begun and not ended, 1 wait before it" in reasons[0].what
    for result in results:
        let_go(world, result)
        result.get(timeout=TIMEOUT)


@pytest.mark.parametrize("how", ["cancelled while it waits", "cancelled while it runs", "failed", "expired"])
def test_every_end_lets_the_next_one_begin(world: World, how: str) -> None:
    key = {"limit": 1, "key": how}
    first = world.task("hold").apply_async(concurrency=key)
    world.wait_for_status(first.id, "processing")
    expires = {"expires": 1} if how == "expired" else {}
    name = "fail" if how == "failed" else "add"
    second = world.task(name).apply_async(["x"] if how == "failed" else [1, 1], concurrency=key, **expires)
    third = world.task("add").apply_async([2, 3], concurrency=key)

    if how == "cancelled while it waits":
        world.app.cancel_job(second.id)
    if how == "expired":
        wait_until(lambda: second.id and _is_over(world, second.id), timeout=TIMEOUT)
    if how == "cancelled while it runs":
        world.app.cancel_job(first.id)
    else:
        let_go(world, first)

    assert third.get(timeout=TIMEOUT) == 5
    if how == "cancelled while it runs":
        assert second.get(timeout=TIMEOUT) == 2
    wait_until(lambda: holds(world, [first, second, third]) == 0, timeout=TIMEOUT)


def _is_over(world: World, task_id: str) -> bool:
    return bool(world.row(task_id)["expires_at"] < datetime.now(UTC))


def holds(world: World, results: list[Any]) -> int:
    ids = [UUID(result.id) for result in results]
    found = world.looking.rows("SELECT count(*) AS number FROM job_holds WHERE job_id = ANY(%s)", [ids])
    return int(found[0]["number"])


def test_a_rate_spreads_the_jobs_of_a_task(world: World) -> None:
    results = [world.app.enqueue("parity.paced", {}).result for _ in range(21)]
    began = sorted(result.get(timeout=TIMEOUT) for result in results)

    first = world.row(results[0].id)["created_at"].timestamp()
    early = [number for number, at in enumerate(began) if at < first + number / 20]
    assert early == []  # none begins before its instant, a twentieth of a second after the one before
    assert began[-1] - began[0] < 5  # a second, where nobody else wants the machine


def test_a_job_that_is_due_later_stands_in_line_then(world: World) -> None:
    key = {"limit": 1, "key": "later"}
    later = world.task("add").apply_async([1, 2], countdown=2.5, concurrency=key)
    now = world.task("hold").apply_async(concurrency=key)
    world.wait_for_status(now.id, "processing")  # what is due later takes no place before
    wait_until(lambda: world.row(later.id)["run_at"] < datetime.now(UTC), timeout=TIMEOUT)
    assert world.row(later.id)["started_at"] is None

    let_go(world, now)
    assert later.get(timeout=TIMEOUT) == 3
    assert world.row(later.id)["started_at"] > world.row(now.id)["completed_at"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"concurrency": -1}, "concurrency is '-1'"),
        ({"concurrency": {"limit": 1, "per": "host"}}, "per 'host'"),
        ({"concurrency": {"limit": 1, "per": "key"}}, "no key is given"),
        ({"concurrency": {"limit": 1, "key": "{nobody}"}}, "cannot be made of its arguments"),
        ({"rate_limit": "fast"}, "rate_limit is 'fast'"),
        ({"rate_limit": {"limit": "1/s", "burst": 2}}, "no 'burst'"),
    ],
)
def test_what_is_no_rule_is_refused(world: World, options: dict[str, Any], told: str) -> None:
    with pytest.raises(UnsupportedOption, match=told):
        world.task("add").apply_async([1, 2], **options)


def test_a_rule_is_set_and_removed_at_run_time(world: World) -> None:
    rules = RuleStore(world.app.database)
    (one,) = concurrency_rules({"limit": 1, "per": "task"})
    rules.set(one, "parity.settable")
    forget(world)
    try:
        results = [world.task("settable").delay() for _ in range(3)]
        wait_until(lambda: begun(world, results), timeout=TIMEOUT)
        assert holds(world, results) == 3
        (limit,) = [each for each in rules.limits() if each.rule == "concurrency task parity.settable"]
        assert (limit.allowed, limit.running, limit.waiting, limit.is_set) == (1, 1, 2, True)

        (three,) = concurrency_rules(3)
        rules.set(three, "parity.settable")  # counts for what waits
        assert [each.target for each in rules.all()] == ["parity.settable"]
        wait_until(lambda: holds_that_wait(world, results) == 0, timeout=TIMEOUT)
        for result in results:
            let_go(world, result)
            result.get(timeout=TIMEOUT)
    finally:
        assert rules.remove(RuleKind.CONCURRENCY, Per.TASK, "parity.settable")
        forget(world)
    free = world.task("settable").delay()
    assert holds(world, [free]) == 0
    let_go(world, free)
    assert not rules.remove(RuleKind.CONCURRENCY, Per.TASK, "parity.settable")


def test_the_setting_goes_before_what_the_task_declares(world: World) -> None:
    world.app.conf.jobbridge_rules = {"parity.settable": {"concurrency": 1}}
    try:
        results = [world.task("settable").delay() for _ in range(2)]
    finally:
        world.app.conf.jobbridge_rules = {}
    assert (holds(world, results), holds_that_wait(world, results)) == (2, 1)
    for result in results:
        let_go(world, result)
        result.get(timeout=TIMEOUT)


def forget(world: World) -> None:
    """Have the app look at what is set at run time; it would do so within five seconds."""
    run_time_rules(world.app)._read_at = float("-inf")


def holds_that_wait(world: World, results: list[Any]) -> int:
    ids = [UUID(result.id) for result in results]
    counted = "SELECT count(*) AS number FROM job_holds WHERE job_id = ANY(%s) AND state = 'waiting'"
    return int(world.looking.rows(counted, [ids])[0]["number"])


def order_of_start(world: World, results: list[Any]) -> list[Any]:
    for result in results:
        result.get(timeout=TIMEOUT)
    return sorted(results, key=lambda result: world.row(result.id)["started_at"])


def test_tenants_take_turns_by_their_weights(world: World) -> None:
    rules = RuleStore(world.app.database)
    first = world.task("hold").apply_async(concurrency={"limit": 1, "per": "task", "fair": True})
    (fair,) = concurrency_rules({"limit": 1, "fair": True})
    rules.set(fair, "parity.hold", weights={"heavy": 2})
    try:
        rule = {"limit": 1, "per": "task", "fair": True}
        send = world.task("hold").apply_async
        many = [send(["go"], tenant="many", concurrency=rule) for _ in range(6)]
        heavy = [send(["go"], tenant="heavy", concurrency=rule) for _ in range(4)]
        light = [send(["go"], tenant="light", concurrency=rule) for _ in range(2)]
        for result in [first, *many, *heavy, *light]:
            let_go(world, result)
        began = order_of_start(world, [*many, *heavy, *light])
    finally:
        rules.remove(RuleKind.CONCURRENCY, Per.TASK, "parity.hold")
        forget(world)

    owners = [world.row(result.id)["tenant"] for result in began]
    assert owners[-3:] == ["many"] * 3, owners
    for turn in (owners[:4], owners[4:8]):
        assert sorted(turn) == ["heavy", "heavy", "light", "many"], owners


def test_priorities_age(world: World) -> None:
    rule = {"limit": 1, "key": "ages", "ageing": 0.2}
    running = world.task("hold").apply_async(concurrency=rule)
    world.wait_for_status(running.id, "processing")
    old = world.task("add").apply_async([1, 1], priority=0, concurrency=rule)
    wait_until(lambda: _age(world, old) > timedelta(seconds=0.7), timeout=TIMEOUT)
    new = world.task("add").apply_async([2, 2], priority=2, concurrency=rule)
    urgent = world.task("add").apply_async([3, 3], priority=9, concurrency=rule)

    let_go(world, running)
    assert [each.id for each in order_of_start(world, [old, new, urgent])] == [urgent.id, old.id, new.id]


def _age(world: World, result: Any) -> timedelta:
    return datetime.now(UTC) - world.row(result.id)["created_at"]


def test_a_transaction_that_is_rolled_back_holds_nothing(world: World) -> None:
    rule = {"limit": 1, "key": "transactions"}
    with psycopg.connect(world.database_url) as connection:
        with world.app.enqueue_on(connection):
            lost = world.task("add").apply_async([1, 1], concurrency=rule)
        other = world.task("add").apply_async([2, 2], concurrency=rule)
        assert other.get(timeout=TIMEOUT) == 4  # the rule is not locked while the transaction is open
        connection.rollback()
        with world.app.enqueue_on(connection):
            kept = world.task("add").apply_async([3, 3], concurrency=rule)
        connection.commit()
    assert kept.get(timeout=TIMEOUT) == 6
    assert holds(world, [lost, other, kept]) == 0


#: How many ran at the same time, at most, by the database's clock; an end counts before a start of the same instant.
OVERLAP = """
SELECT max(running) AS running FROM (
    SELECT sum(step) OVER (ORDER BY at, step ROWS UNBOUNDED PRECEDING) AS running
    FROM (
        SELECT started_at AS at, 1 AS step FROM jobs WHERE type = %(type)s
        UNION ALL
        SELECT completed_at, -1 FROM jobs WHERE type = %(type)s
    ) AS steps
) AS counted
"""


@pytest.mark.long  # workers are killed and start again, several times
def test_a_limit_holds_while_workers_are_killed(own_world: World) -> None:
    chance = random.Random(17)
    workers = [own_world.worker("-c", "4") for _ in range(2)]
    jobs = [own_world.task("three").delay() for _ in range(400)]
    for part in range(1, 4):
        wait_until(lambda part=part: _ended(own_world) >= 80 * part, timeout=120)
        workers.pop(chance.randrange(2)).kill()
        workers.append(own_world.worker("-c", "4"))
    wait_until(lambda: _ended(own_world) == len(jobs), timeout=240)

    assert {row["status"] for row in own_world.rows()} == {"completed"}
    assert own_world.looking.rows(OVERLAP, {"type": "parity.three"})[0]["running"] == 3
    assert own_world.looking.rows("SELECT count(*) AS number FROM job_holds")[0]["number"] == 0
    assert own_world.looking.rows("SELECT count(*) AS number FROM job_rule_changes")[0]["number"] == 0


def _ended(world: World) -> int:
    counted = "SELECT count(*) AS number FROM jobs WHERE completed_at IS NOT NULL"
    return int(world.looking.rows(counted)[0]["number"])
