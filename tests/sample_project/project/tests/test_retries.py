import uuid

import pytest
from conftest import wait_for
from shop import orders
from shop.ledger import lines

TIMEOUT = 30


def test_retry_until_it_works():
    order = str(uuid.uuid4())
    result = orders.charge.delay(order, 2)
    assert result.get(timeout=TIMEOUT) == {"order": order, "tries": 3, "retries": 2}


def test_retry_until_there_is_no_more():
    order = str(uuid.uuid4())
    with pytest.raises(ConnectionError, match="try 4"):
        orders.charge.delay(order, 10).get(timeout=TIMEOUT)
    assert len(lines(f"charge-{order}")) == 4


def test_autoretry():
    assert orders.fetch_rates.delay(str(uuid.uuid4()), 1).get(timeout=TIMEOUT) == "rates"


def test_hooks_of_the_base_class():
    result = orders.pack.delay()
    assert result.get(timeout=TIMEOUT) == "packed"
    wait_for(lambda: lines(result.id) == ["before_start", "on_success packed", "after_return SUCCESS"])

    result = orders.pack.delay(fails=True)
    with pytest.raises(ValueError, match="broken"):
        result.get(timeout=TIMEOUT)
    wait_for(lambda: "after_return FAILURE" in lines(result.id))
    wait_for(lambda: lines(result.id).count("on_retry") == 1)
    assert lines(result.id).count("before_start") == 2
    assert "on_failure broken" in lines(result.id)


def test_a_task_that_says_that_it_is_to_be_ignored():
    result = orders.skipped.delay()
    assert orders.add.delay(1, 1).get(timeout=TIMEOUT) == 2
    assert result.state in ("PENDING", "STARTED")


def test_signals():
    order = str(uuid.uuid4())
    result = orders.charge.delay(order, 1)
    result.get(timeout=TIMEOUT)

    def mine():
        return sorted(line.rpartition(" ")[0] for line in lines("signals") if line.endswith(result.id))

    expected = sorted([
        "before_task_publish", "after_task_publish", "task_prerun", "task_retry", "task_postrun RETRY",
        "before_task_publish", "after_task_publish", "task_prerun", "task_success", "task_postrun SUCCESS",
    ])  # fmt: skip
    wait_for(lambda: mine() == expected)
    assert {"worker_process_init", "worker_ready"} <= set(lines("signals"))
