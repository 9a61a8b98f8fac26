"""What of a message reaches its task, what of its errors reaches its engine, and what remote control knows of it."""

from __future__ import annotations

import time
from typing import Any
from uuid import UUID

import pytest
from celery import chain, group, states

from jobbridge.core.keys import Engine
from jobbridge.errors import UnsupportedOption
from jobbridge.temporal.reconcile.inspect import look_at
from tests.forked import run_python
from tests.parity import result_tasks  # noqa: F401  (its tasks are the app's)
from tests.parity.conftest import World
from tests.parity.tasks import make_app
from tests.support import clean_environment, wait_until

TIMEOUT = 30


def test_all_properties_of_a_message_reach_its_task(world: World) -> None:
    sent = {"app_id": "shop", "message_id": "m-1", "type": "order", "reply_to": "nobody"}

    seen = (
        world.task("properties").apply_async(expiration=60, custom=[1, {"a": 2}], **sent).get(timeout=TIMEOUT)
    )

    assert {name: seen[name] for name in sent} == sent
    assert (seen["expiration"], seen["custom"]) == ("60000", [1, {"a": 2}])


def test_reprs_of_arguments_are_the_senders(world: World) -> None:
    # They are left out of what Temporal carries where a worker can make them.
    plain = world.task("who").apply_async((1, "b"), {"a": 2}).get(timeout=TIMEOUT)
    hidden = world.task("who").apply_async([1], argsrepr="(secret)").get(timeout=TIMEOUT)

    assert (plain["argsrepr"], plain["kwargsrepr"]) == ("(1, 'b')", "{'a': 2}")
    assert hidden["argsrepr"] == "(secret)"


def test_an_error_of_megabytes_ends_its_job_once(world: World) -> None:
    result = world.task("fails_at_length").delay(3)

    row = world.wait_for_status(result.id, "failed", timeout=60)

    assert row["attempt"] == 1
    assert len(row["error"]) > 3 * 1024 * 1024
    assert row["error"].endswith("end")
    if world.engine is Engine.TEMPORAL:

        def has_failed() -> bool:
            facts = look_at(world.app, result.id, "celery")
            return facts is not None and facts.status == "FAILED"

        wait_until(has_failed, timeout=TIMEOUT)


def test_links_that_fail_unsent_belong_to_the_engine_they_would_have_gone_to(world: World) -> None:
    add, fail = world.task("add"), world.task("fail")
    last = chain(fail.s("first"), add.s(1), add.s(2)).delay()

    row = world.wait_for_status(last.id, "failed")

    assert row["runner_type"] == world.engine.value


@pytest.mark.parametrize("countdown", [None, 2])
def test_a_revoke_that_no_worker_heard_is_remembered(own_world: World, countdown: float | None) -> None:
    revoked = own_world.task("add").apply_async([1, 1], countdown=countdown)
    revoked.revoke()
    due = time.time() + (countdown or 0)
    assert own_world.row(revoked.id)["status"] == "cancelled"
    assert revoked.state == states.REVOKED

    own_world.worker("-P", "threads")
    wait_until(lambda: time.time() > due)

    assert own_world.task("add").delay(2, 2).get(timeout=TIMEOUT) == 4
    assert own_world.row(revoked.id)["attempt"] == 0
    assert own_world.lines(revoked, "add") == []


def test_a_revoke_is_remembered_whoever_tells_of_it(own_world: World) -> None:
    """By a UUID, by several, as a command that is broadcast, and as Celery's own command line broadcasts it."""
    control, add = own_world.app.control, own_world.task("add")
    sent = [add.delay(1, number) for number in range(6)]
    control.revoke(UUID(sent[0].id))
    control.revoke([UUID(sent[1].id), sent[2].id.upper()])
    control.broadcast("revoke", arguments={"task_id": sent[3].id})
    for command in (["revoke", sent[4].id], ["terminate", "SIGTERM", sent[5].id]):
        arguments = ["-m", "celery", "-A", own_world.module, "control", "--timeout", "0.1", *command]
        run_python(arguments, env=clean_environment(own_world.environment))  # 69: nobody has answered

    assert [own_world.row(each.id)["status"] for each in sent] == ["cancelled"] * 6
    own_world.worker("-P", "threads")
    assert add.delay(2, 2).get(timeout=TIMEOUT) == 4
    assert [own_world.row(each.id)["attempt"] for each in sent] == [0] * 6


def test_a_revoke_by_stamps_that_no_worker_heard_is_remembered(own_world: World) -> None:
    """By one value, by a list, of a stamp that is a list, in a group, later, and as Celery's command line tells it."""
    control, add = own_world.app.control, own_world.task("add")

    def stamped(countdown: float | None = None, **stamps: Any) -> Any:
        signature = add.s(1, 1)
        signature.stamp(**stamps)
        return signature.apply_async(countdown=countdown)

    members = group(add.s(1, 1), add.s(1, 2))
    members.stamp(batch="seven")
    revoked = [
        stamped(customer="a"),
        stamped(customer=["b", "c"]),
        stamped(300, customer="c"),
        stamped(order=7),
    ]
    revoked += [stamped(customer="by command"), *members.apply_async().results]
    kept = [stamped(customer="d"), stamped(order="7"), stamped(other="a")]

    control.revoke_by_stamped_headers({"customer": ["a", "c"], "order": 7})
    control.revoke_by_stamped_headers({"batch": "seven"}, terminate=True)
    command = ["control", "--timeout", "0.1", "revoke_by_stamped_headers", "customer=by command"]
    run_python(
        ["-m", "celery", "-A", own_world.module, *command], env=clean_environment(own_world.environment)
    )

    assert [own_world.row(each.id)["status"] for each in revoked] == ["cancelled"] * len(revoked)
    own_world.worker("-P", "threads")
    assert [each.get(timeout=TIMEOUT) for each in kept] == [2, 2, 2]
    assert [own_world.row(each.id)["attempt"] for each in revoked] == [0] * len(revoked)


def test_purge_leaves_nothing_that_runs_later(own_world: World) -> None:
    waiting = own_world.task("add").delay(1, 1)
    wait_until(lambda: own_world.row(waiting.id)["status"] == "queued")

    assert own_world.app.control.purge() == 1

    own_world.worker("-P", "threads")
    assert own_world.task("add").delay(2, 2).get(timeout=TIMEOUT) == 4
    assert own_world.lines(waiting, "add") == []


def test_jobs_that_wait_for_their_time_are_listed_by_inspect(world: World) -> None:
    result = world.task("add").apply_async([3, 4], {}, countdown=120)
    wait_until(lambda: world.row(result.id)["status"] == "scheduled")

    (scheduled,) = world.app.control.inspect(timeout=10, limit=1).scheduled().values()
    result.revoke()

    (entry,) = [each for each in scheduled if each["request"]["id"] == result.id]
    assert entry["eta"] == world.row(result.id)["run_at"].isoformat()
    assert (entry["request"]["name"], entry["request"]["args"]) == ("parity.add", [3, 4])
    assert entry["request"]["delivery_info"]["routing_key"] == "celery"


def test_options_that_the_apps_code_adds_reach_its_steps(own_world: World) -> None:
    own_world.starters[own_world.engine](
        "tests.parity.options_app", "-P", "threads", "--greeting", "hello", **own_world.environment
    )

    assert (own_world.folder / "greeting").read_text() == "hello"


def test_a_revoked_id_stays_so(own_world: World) -> None:
    revoked = own_world.task("add").delay(1, 1)
    revoked.revoke()

    own_world.task("add").apply_async([1, 1], task_id=revoked.id)

    assert (own_world.row(revoked.id)["status"], revoked.state) == ("cancelled", states.REVOKED)


def test_protocol_1_is_refused_when_it_is_sent(own_world: World) -> None:
    app = make_app(settings=own_world.app.settings)
    app.conf.task_protocol = 1

    with pytest.raises(UnsupportedOption, match="protocol 1"):
        app.send_task("parity.add", [1, 1])
    assert own_world.rows() == []
    app.database.close()
