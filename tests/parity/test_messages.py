"""What of a message reaches its task, what of its errors reaches its engine, and what remote control knows of it."""

from __future__ import annotations

import time

import pytest
from celery import chain, states

from jobbridge.core.keys import Engine
from jobbridge.errors import UnsupportedOption
from jobbridge.temporal.reconcile.inspect import look_at
from tests.parity import result_tasks  # noqa: F401  (its tasks are the app's)
from tests.parity.conftest import World
from tests.parity.tasks import make_app
from tests.support import wait_until

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
