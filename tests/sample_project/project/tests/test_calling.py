import uuid
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from celery.exceptions import TaskRevokedError
from celery.result import AsyncResult
from conftest import wait_for
from shop import media, orders, reports
from shop.ledger import lines, note

TIMEOUT = 30


def test_delay():
    assert orders.add.delay(2, 3).get(timeout=TIMEOUT) == 5


def test_send_task_by_name(shop):
    assert shop.send_task("shop.orders.add", [4, 5]).get(timeout=TIMEOUT) == 9


def test_a_signature_with_options():
    signature = orders.add.s(1).set(countdown=0.1)
    assert signature.delay(2).get(timeout=TIMEOUT) == 3


def test_a_bound_task_knows_its_request():
    task_id = str(uuid.uuid4())
    seen = orders.describe.apply_async([1], {"a": 2}, task_id=task_id, headers={"custom": "x"}).get(
        timeout=TIMEOUT
    )
    assert seen == {
        "id": task_id, "args": [1], "kwargs": {"a": 2}, "retries": 0, "eager": False, "parent": None,
        "root": task_id, "routing_key": "shop", "custom": "x", "name": "shop.orders.describe",
    }  # fmt: skip


def test_tasks_that_are_classes():
    assert orders.order_number.delay(7).get(timeout=TIMEOUT) == "A-0007"
    assert orders.fancy_order_number.delay(7).get(timeout=TIMEOUT) == "F-0007"


def test_a_base_class_keeps_its_connection():
    assert [orders.stock_of.delay(each).get(timeout=TIMEOUT) for each in ("apple", "pear")] == [3, 5]


def test_an_eta_and_a_countdown():
    eta = datetime.now(UTC) + timedelta(seconds=1)
    result = orders.describe.apply_async(eta=eta)
    assert result.get(timeout=TIMEOUT)
    assert datetime.now(UTC) >= eta
    assert orders.add.apply_async([1, 1], countdown=0.5).get(timeout=TIMEOUT) == 2


def test_what_has_expired_does_not_run():
    past = datetime.now(UTC) - timedelta(seconds=10)
    result = orders.urgent.apply_async([f"late {uuid.uuid4()}"], expires=past)
    with pytest.raises(TaskRevokedError):
        result.get(timeout=TIMEOUT)


def test_revoke_what_waits():
    result = orders.urgent.apply_async(["revoked"], countdown=2)
    result.revoke()
    with pytest.raises(TaskRevokedError):
        result.get(timeout=TIMEOUT)
    assert "revoked" not in lines("urgent")


def test_routing_to_a_topic_exchange():
    assert media.resize.delay("cat").get(timeout=TIMEOUT) == ["cat", "media.images"]
    result = media.resize.apply_async(["dog"], exchange="media", routing_key="media.large.dogs")
    assert result.get(timeout=TIMEOUT) == ["dog", "media.large.dogs"]


def test_routing_and_priority():
    assert orders.urgent.apply_async(["now"], priority=9).get(timeout=TIMEOUT) == "now"


def test_an_own_serializer_and_pickle():
    assert orders.price.delay(Decimal("1.10"), 3).get(timeout=TIMEOUT) == "3.30"
    assert orders.tags.delay({"b", "a"}).get(timeout=TIMEOUT) == ["a", "b"]


def test_compression():
    result = orders.describe.apply_async(["x" * 10_000], compression="gzip")
    assert result.get(timeout=TIMEOUT)["args"] == ["x" * 10_000]


def test_an_ignored_result():
    order = uuid.uuid4()
    result = orders.send_receipt.delay(str(order))
    wait_for(lambda: lines(f"receipt-{order}"))
    assert result.state == "PENDING"


def test_progress_is_seen_while_a_task_runs():
    order = str(uuid.uuid4())
    result = orders.long_order.delay(order)
    wait_for(lambda: lines(f"long-{order}"))
    assert (result.state, result.info) == ("PROGRESS", {"current": 1, "total": 2})
    note(f"go-{order}")
    assert result.get(timeout=TIMEOUT) == "done"


def test_a_soft_time_limit():
    assert orders.too_slow.delay().get(timeout=TIMEOUT) == "stopped softly"


def test_tasks_that_a_task_sends():
    result = orders.opens.delay([1, 2])
    ids = result.get(timeout=TIMEOUT)
    assert [AsyncResult(each).get(timeout=TIMEOUT) for each in ids] == [2, 3]


def test_a_rate_limit_lets_all_pass():
    sent = [reports.limited.delay(number) for number in range(10)]
    assert [each.get(timeout=TIMEOUT) for each in sent] == list(range(10))


def test_eagerly():
    assert orders.add.apply([1, 2]).get() == 3
    assert orders.describe.apply([1]).get()["eager"] is True


def test_periodic_tasks_run():
    for which in ("declared", "added"):
        wait_for(lambda which=which: len(lines(f"tick-{which}")) >= 2)
