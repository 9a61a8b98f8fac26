"""What Celery users rely on, on both engines."""

from __future__ import annotations

import datetime as dt
import uuid
from decimal import Decimal
from typing import Any

import pytest
from celery import chain, chord, group, signature
from celery.exceptions import ChordError, TaskRevokedError
from celery.result import AsyncResult, GroupResult

from tests.parity.conftest import World
from tests.support import wait_until

TIMEOUT = 30


def test_the_request_says_what_celerys_says(world: World) -> None:
    task_id = str(uuid.uuid4())

    result = world.task("who").apply_async(
        [1], {"a": 2}, task_id=task_id, priority=7, headers={"custom": "yes"}, shadow="nickname"
    )

    seen = result.get(timeout=TIMEOUT)
    assert seen["id"] == seen["root_id"] == task_id
    assert (seen["parent_id"], seen["retries"], seen["is_eager"], seen["called_directly"]) == (
        None,
        0,
        False,
        False,
    )
    assert (seen["args"], seen["kwargs"]) == ([1], {"a": 2})
    assert (seen["priority"], seen["custom"], seen["shadow"], seen["queue"]) == (
        7,
        "yes",
        "nickname",
        "celery",
    )
    assert "@" in seen["hostname"]
    assert world.row(task_id)["priority"] == 7


def test_send_task_by_name_needs_no_code(world: World) -> None:
    assert world.app.send_task("parity.add", [4, 5]).get(timeout=TIMEOUT) == 9


def test_a_task_id_that_is_no_uuid(world: World) -> None:
    task_id = f"order-{uuid.uuid4().hex[:6]}"

    result = world.task("add").apply_async([1, 2], task_id=task_id)

    assert result.get(timeout=TIMEOUT) == 3
    (row,) = world.rows("external_id = %s", task_id)
    assert (row["task_id"], row["status"]) == (task_id, "completed")


def test_hooks_of_a_users_own_base_class_run(world: World) -> None:
    result = world.task("hooked").delay()
    assert result.get(timeout=TIMEOUT) == "fine"
    wait_until(lambda: world.lines(result, "hooks") == ["before_start", "on_success", "after_return SUCCESS"])

    result = world.task("hooked").delay(fails=True)
    with pytest.raises(ValueError, match="no"):
        result.get(timeout=TIMEOUT)
    # on_retry runs after the retry was sent: another process may have begun it by then.
    expected = ["before_start", "before_start", "on_failure", "after_return FAILURE"]
    wait_until(lambda: [hook for hook in world.lines(result, "hooks") if hook != "on_retry"] == expected)
    wait_until(lambda: world.lines(result, "hooks").count("on_retry") == 1)


def test_a_custom_state_is_seen_while_the_task_runs(world: World) -> None:
    result = world.task("custom_state").delay()
    wait_until(lambda: world.lines(result, "halfway"), timeout=TIMEOUT)

    assert (result.state, result.info) == ("HALFWAY", {"current": 5, "total": 10})
    assert world.row(result.id)["progress"] == 50

    world.release(result)
    assert result.get(timeout=TIMEOUT) == "whole"
    assert result.state == "SUCCESS"


@pytest.mark.parametrize("serializer", ["json", "pickle", "yaml"])
def test_serializers_that_the_app_accepts(world: World, serializer: str) -> None:
    value = {"n": 1, "words": ["a", "b"]}

    assert world.task("echo").apply_async([value], serializer=serializer).get(timeout=TIMEOUT) == value


def test_values_that_plain_json_does_not_know(world: World) -> None:
    value = [Decimal("1.10"), uuid.uuid4(), dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC), "\x00 and ü"]

    assert world.task("echo").delay(value).get(timeout=TIMEOUT) == value


def test_compression(world: World) -> None:
    assert world.task("echo").apply_async(["x" * 5000], compression="zlib").get(timeout=TIMEOUT) == "x" * 5000


def test_a_large_payload(world: World) -> None:
    text = "ü" * 1_500_000

    assert len(world.task("echo").delay(text).get(timeout=60)) == len(text)


def test_link_and_link_error(world: World) -> None:
    record, errback = world.task("record"), world.task("errback")

    result = world.task("add").apply_async([1, 2], link=record.s("linked"))
    result.get(timeout=TIMEOUT)
    wait_until(lambda: world.lines(result, "record") == ["(3, 'linked')"], timeout=TIMEOUT)
    assert len(result.children) == 1

    failed = world.task("fail").apply_async(["boom"], link_error=errback.s())
    with pytest.raises(ValueError, match="boom"):
        failed.get(timeout=TIMEOUT)
    wait_until(lambda: world.lines(failed, "errback") == [f"{failed.id} boom"], timeout=TIMEOUT)


def test_a_chain_whose_middle_fails_fails_to_its_end(world: World) -> None:
    add, fail = world.task("add"), world.task("fail")

    result = chain(add.s(1, 2), fail.si("broken"), add.s(1)).delay()

    with pytest.raises(ValueError, match="broken"):
        result.get(timeout=TIMEOUT)
    assert result.parent.parent.get(timeout=TIMEOUT) == 3
    row = world.wait_for_status(result.id, "failed")
    assert (row["attempt"], row["type"]) == (0, "parity.add")


def test_a_chord_with_a_failing_part_fails_its_body(world: World) -> None:
    add, fail, total = world.task("add"), world.task("fail"), world.task("total")

    result = chord([add.s(1, 1), fail.s("part")], total.s()).delay()

    with pytest.raises(
        (ChordError, ValueError), match="part"
    ):  # get() raises what its parents raised, if they did yet
        result.get(timeout=TIMEOUT)
    wait_until(lambda: result.state == "FAILURE", timeout=TIMEOUT)
    assert isinstance(result.result, ChordError)


def test_nested_canvas(world: World) -> None:
    add, total = world.task("add"), world.task("total")

    flow = chain(
        add.s(1, 1),
        group(add.s(1), chain(add.s(2), add.s(3))),
        total.s(),
        group(add.s(10), add.s(20)),
        total.s(),
    )

    assert flow.delay().get(timeout=60) == 50  # 2 → [3, 7] → 10 → [20, 30] → 50


def test_map_starmap_and_chunks(world: World) -> None:
    add, echo = world.task("add"), world.task("echo")

    assert echo.map([1, 2]).delay().get(timeout=TIMEOUT) == [1, 2]
    assert add.starmap([(1, 2), (3, 4)]).delay().get(timeout=TIMEOUT) == [3, 7]
    assert add.chunks(zip(range(4), range(4), strict=True), 2).delay().get(timeout=TIMEOUT) == [
        [0, 2],
        [4, 6],
    ]


def test_a_group_result_can_be_saved_and_restored(world: World) -> None:
    result = group(world.task("add").s(i, 1) for i in range(3)).delay()
    result.save()

    restored = GroupResult.restore(result.id, app=world.app)

    assert restored is not None
    assert restored.get(timeout=TIMEOUT) == [1, 2, 3]
    assert restored.successful()


def test_tasks_that_a_task_sends_know_their_parent(world: World) -> None:
    result = world.task("parent").apply_async([2], tenant="family")

    first, second = result.get(timeout=TIMEOUT)

    assert world.app.AsyncResult(first).get(timeout=TIMEOUT) == 4
    assert world.app.AsyncResult(second).get(timeout=TIMEOUT) == 3
    rows = world.rows("parent_id = %s", uuid.UUID(result.id))
    assert {str(row["job_id"]) for row in rows} == {first, second}
    assert {row["root_id"] for row in rows} == {uuid.UUID(result.id)}
    assert {row["tenant"] for row in rows} == {"family"}
    assert {child.id for child in result.children} == {first, second}


def test_replace_again_and_again(world: World) -> None:
    result = world.task("nests").delay(4)

    assert result.get(timeout=TIMEOUT) == "bottom"
    assert world.row(result.id)["attempt"] == 5


def test_a_rejected_argument_list_fails_when_it_is_sent(world: World) -> None:
    with pytest.raises(TypeError):
        world.task("add").delay(1)


def test_wrong_arguments_from_a_client_without_the_code_fail_the_job(world: World) -> None:
    result = world.app.send_task("parity.add", [1])

    with pytest.raises(TypeError):
        result.get(timeout=TIMEOUT)


def test_a_task_that_no_worker_knows_fails_with_its_name(world: World) -> None:
    result = world.app.send_task("parity.unheard_of", [1])

    row = world.wait_for_status(result.id, "failed")
    assert "parity.unheard_of" in row["error"]
    assert result.state == "FAILURE"


def test_eager_mode_runs_here_and_leaves_no_row(world: World) -> None:
    before = len(world.rows())

    result = world.task("echo").apply(["now"])

    assert result.get() == "now"
    assert len(world.rows()) == before


def test_forget_drops_the_result(world: World) -> None:
    result = world.task("echo").delay("secret")
    result.get(timeout=TIMEOUT)

    result.forget()

    assert world.row(result.id)["result"] is None


def test_revoke_of_a_waiting_task_by_celerys_own_call(world: World) -> None:
    result = world.task("add").apply_async([1, 1], countdown=3)

    result.revoke()

    with pytest.raises(TaskRevokedError):
        result.get(timeout=TIMEOUT)
    assert world.row(result.id)["status"] == "cancelled"
    assert world.lines(result, "add") == []


def test_revoke_with_terminate_stops_running_code(world: World) -> None:
    result = world.task("hold").delay()
    wait_until(lambda: world.lines(result, "hold.pids"), timeout=TIMEOUT)

    result.revoke(terminate=True)

    with pytest.raises(TaskRevokedError):
        result.get(timeout=TIMEOUT)
    assert world.wait_for_status(result.id, "cancelled")


def test_inspect_sees_the_worker_and_what_it_runs(world: World) -> None:
    result = world.task("hold").delay()
    wait_until(lambda: world.lines(result, "hold.pids"), timeout=TIMEOUT)
    inspect = world.app.control.inspect(timeout=10, limit=1)

    (worker,) = inspect.ping()
    active = inspect.active()[worker]
    world.release(result)

    assert [(entry["id"], entry["acknowledged"]) for entry in active] == [(result.id, False)]
    assert "parity.add" in inspect.registered()[worker]
    assert inspect.stats()[worker]["pool"]["max-concurrency"] == 2
    assert result.get(timeout=TIMEOUT) == 1


def test_events_show_the_job(world: World) -> None:
    world.app.control.enable_events()
    seen: list[dict[str, Any]] = []
    wanted = {"task-received", "task-started", "task-succeeded"}
    with world.app.connection_for_read() as connection:
        receiver = world.app.events.Receiver(connection, handlers={"*": seen.append})
        arrivals = receiver.itercapture(limit=None, timeout=TIMEOUT, wakeup=True)
        wait_until(lambda: next(arrivals) or seen, timeout=TIMEOUT)  # a heartbeat: the receiver is bound
        result = world.task("echo").delay("seen")

        def is_complete() -> bool:
            next(arrivals)
            return wanted <= {event["type"] for event in seen if event.get("uuid") == result.id}

        wait_until(is_complete, timeout=TIMEOUT)
        arrivals.close()


def test_a_signature_from_json_runs(world: World) -> None:
    sent = signature({**world.task("add").s(2, 2)}, app=world.app).delay()

    assert AsyncResult(sent.id, app=world.app).get(timeout=TIMEOUT) == 4


def test_the_end_of_a_chain_that_failed_before_it_belongs_to_the_chain_and_its_tenant(world: World) -> None:
    add, fail = world.task("add"), world.task("fail")

    result = chain(add.s(1, 2), fail.si("broken"), add.s(1)).apply_async(tenant="acme")

    failing, first = result.parent.id, uuid.UUID(result.parent.parent.id)
    assert world.wait_for_status(failing, "failed")["tenant"] == "acme"
    never_sent = world.wait_for_status(result.id, "failed")
    assert (never_sent["root_id"], never_sent["parent_id"]) == (first, uuid.UUID(failing))
    assert never_sent["tenant"] == "acme"


def test_a_job_that_is_retried_keeps_who_sent_it(world: World) -> None:
    result = chain(world.task("add").s(0, 1), world.task("retry_until").s()).delay()

    assert result.get(timeout=TIMEOUT) is not None
    row = world.wait_for_status(result.id, "completed")
    assert row["attempt"] == 2
    assert row["parent_id"] == row["root_id"] == uuid.UUID(result.parent.id)
