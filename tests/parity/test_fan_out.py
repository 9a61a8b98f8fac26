"""One parent, many children: the same on both engines."""

from __future__ import annotations

import uuid
from typing import Any

from tests.parity import family_tasks as family_tasks  # declares the handlers
from tests.parity.conftest import World


def send(world: World, name: str = "family", /, tenant: str | None = None, **data: Any) -> Any:
    return world.task(name).apply_async(args=[data], tenant=tenant)


def children_of(world: World, result: Any) -> list[dict[str, Any]]:
    return world.rows("parent_id = %s", uuid.UUID(str(result)))


def test_a_parent_completes_when_all_its_children_have(world: World) -> None:
    result = send(world, children=7, concurrency=3)

    report = result.get(timeout=30)

    assert report["outcome"] == "complete"
    row = world.wait_for_status(str(result), "completed")
    assert {child["status"] for child in children_of(world, result)} == {"completed"}
    assert len(children_of(world, result)) == 7
    assert sorted(world.lines(result, "children")) == [str(number) for number in range(7)]
    assert len(world.lines(result, "family")) == 1, "the handler ran once; its second attempt only collects"
    print(row, world.details(str(result)))
