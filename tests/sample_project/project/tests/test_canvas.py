import pytest
from celery import chain, chord, group
from celery.result import GroupResult
from conftest import wait_for
from shop import media, orders, reports
from shop.ledger import lines

TIMEOUT = 30


def test_chain():
    result = (orders.add.s(1, 2) | orders.add.s(3) | orders.add.s(4)).delay()
    assert result.get(timeout=TIMEOUT) == 10
    assert result.parent.get(timeout=TIMEOUT) == 6


def test_chain_of_immutable_signatures():
    assert chain(orders.add.si(1, 1), orders.add.si(2, 2)).delay().get(timeout=TIMEOUT) == 4


def test_group():
    result = group(orders.add.s(number, number) for number in range(5)).delay()
    assert result.get(timeout=TIMEOUT) == [0, 2, 4, 6, 8]
    assert (result.completed_count(), result.successful()) == (5, True)


def test_a_group_that_is_saved(shop):
    result = group(orders.add.s(number, 1) for number in range(3)).delay()
    result.save()
    assert GroupResult.restore(result.id, app=shop).get(timeout=TIMEOUT) == [1, 2, 3]


def test_chord():
    header = [orders.add.s(number, number) for number in range(5)]
    assert chord(header)(orders.total.s()).get(timeout=TIMEOUT) == 20


def test_chord_of_routed_tasks():
    result = chord([media.resize.s("a"), media.resize.s("b")], media.thumbnail.s()).delay()
    assert result.get(timeout=TIMEOUT) == ["small a", "small b"]


def test_a_group_in_a_chain():
    flow = orders.add.s(1, 1) | group(orders.add.s(10), orders.add.s(20)) | orders.total.s()
    assert flow.delay().get(timeout=TIMEOUT) == 34


def test_chunks_map_and_starmap():
    chunks = orders.add.chunks(zip(range(6), range(6), strict=True), 2)
    assert chunks.group().delay().get(timeout=TIMEOUT) == [[0, 2], [4, 6], [8, 10]]
    assert orders.add.starmap([(1, 2), (3, 4)]).delay().get(timeout=TIMEOUT) == [3, 7]
    assert orders.total.map([[1, 2], [3]]).delay().get(timeout=TIMEOUT) == [3, 3]


def test_replaced_by_a_chain_and_by_a_chord():
    assert orders.becomes.delay(1).get(timeout=TIMEOUT) == 12
    assert reports.whole_report.delay(3).get(timeout=TIMEOUT) == {"0": 0, "1": 1, "2": 4}


def test_link_and_link_error():
    result = orders.add.apply_async([1, 2], link=orders.urgent.si("linked"))
    assert result.get(timeout=TIMEOUT) == 3
    wait_for(lambda: "linked" in lines("urgent"))

    failed = orders.reserve.apply_async(["apple"], link_error=[orders.note_error.s(), orders.note_failed.s()])
    with pytest.raises(orders.OutOfStock):
        failed.get(timeout=TIMEOUT)
    wait_for(lambda: f"{failed.id} apple" in lines("errors"))
    wait_for(lambda: failed.id in lines("failed"))


def test_a_chain_that_fails_does_not_go_on():
    result = chain(orders.add.s(1, 1), orders.reserve.si("pear"), orders.urgent.si("never")).delay()
    with pytest.raises(orders.OutOfStock):
        result.get(timeout=TIMEOUT)
    assert "never" not in lines("urgent")


def test_a_chord_that_fails_tells_its_callback():
    body = orders.total.s().on_error(orders.note_failed.s())
    result = chord([orders.add.s(1, 1), orders.reserve.s("plum")], body).delay()
    with pytest.raises(Exception, match="plum"):
        result.get(timeout=TIMEOUT)
    wait_for(lambda: result.id in lines("failed"))
