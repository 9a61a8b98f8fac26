from __future__ import annotations

import uuid

import pytest

from jobbridge.core.fanout import (
    KEY_LIMIT,
    MAX_CHILDREN,
    Child,
    ChildCounts,
    FanOut,
    FanOutOutcome,
    Member,
    child_id,
    failure_of,
)
from jobbridge.core.keys import SYSTEM_TENANT, JobKey, TenantId
from jobbridge.errors import UnsupportedOption

PARENT = JobKey(tenant=SYSTEM_TENANT, job_id=uuid.UUID(int=1))


@pytest.mark.parametrize(
    ("counts", "outcome"),
    [
        (ChildCounts(), FanOutOutcome.COMPLETE),
        (ChildCounts(completed=3), FanOutOutcome.COMPLETE),
        (ChildCounts(completed=3, skipped=1), FanOutOutcome.COMPLETE),
        (ChildCounts(skipped=1), FanOutOutcome.COMPLETE),
        (ChildCounts(completed=3, failed=1), FanOutOutcome.PARTIAL),
        (ChildCounts(completed=3, cancelled=1), FanOutOutcome.PARTIAL),
        (ChildCounts(completed=3, expired=1), FanOutOutcome.PARTIAL),
        (ChildCounts(failed=1, skipped=1), FanOutOutcome.FAILED),
        (ChildCounts(completed=3, released=1), None),
        (ChildCounts(failed=3, waiting=1), None),
    ],
)
def test_a_parent_is_told_truthfully(counts: ChildCounts, outcome: FanOutOutcome | None) -> None:
    assert counts.outcome is outcome


def test_counts_add_up() -> None:
    counts = ChildCounts.of({"waiting": 1, "released": 2, "completed": 3, "failed": 4, "skipped": 5})

    assert (counts.total, counts.unfinished, counts.ended, counts.unsuccessful) == (15, 3, 12, 4)
    assert counts.to_json()["unfinished"] == 3
    assert ChildCounts(completed=2).to_json() == {
        "outcome": "complete", "total": 2, "completed": 2, "failed": 0, "cancelled": 0, "expired": 0, "skipped": 0,
    }  # fmt: skip


def test_items_get_keys_by_their_place_a_function_or_themselves() -> None:
    assert [child.key for child in FanOut(task="t", items=["a", "b"]).children()] == ["0", "1"]
    by_name = FanOut(task="t", items=[{"name": "x"}, {"name": "y"}], key=lambda item: item["name"])
    assert [child.key for child in by_name.children()] == ["x", "y"]
    own = FanOut(task="t", items=[Child(data=1, key="k", tenant="acme"), 2])
    assert list(own.children()) == [Child(data=1, key="k", tenant="acme"), Child(data=2, key="1")]


def test_items_that_cannot_be_told_apart_are_refused() -> None:
    with pytest.raises(UnsupportedOption, match="Two items of the fan-out to 't' have the key 'same'"):
        list(FanOut(task="t", items=[1, 2], key=lambda _: "same").children())
    for key in ("", "x" * (KEY_LIMIT + 1), "a\x00b"):
        with pytest.raises(UnsupportedOption, match="has the key"):
            list(FanOut(task="t", items=[Child(key=key)]).children())


def test_too_many_items_are_refused() -> None:
    with pytest.raises(UnsupportedOption, match="more than 100,000 items"):
        for _ in FanOut(task="t", items=range(MAX_CHILDREN + 1)).children():
            pass


@pytest.mark.parametrize("concurrency", [0, -1, 10_001, 1.5, True, "4", None])
def test_a_concurrency_that_is_no_number_of_children_is_refused(concurrency: int) -> None:
    with pytest.raises(UnsupportedOption, match="concurrency is"):
        FanOut(task="t", items=[], concurrency=concurrency)


def test_a_childs_id_follows_from_its_parent_and_key() -> None:
    other = JobKey(tenant=TenantId("acme"), job_id=uuid.UUID(int=2))

    assert child_id(PARENT, "a") == child_id(PARENT, "a")
    assert len({child_id(PARENT, "a"), child_id(PARENT, "b"), child_id(other, "a")}) == 3


def test_a_failure_names_some_children_and_counts_the_others() -> None:
    failed = [Member(key=PARENT, item_key=f"c{n}", status="failed", error="ValueError: no") for n in range(2)]

    text = failure_of(ChildCounts(completed=1, failed=3, expired=1), failed)

    assert text == (
        "Of 5 children 3 failed and 1 expired: c0 (ValueError: no); c1 (ValueError: no); and 2 more."
    )
