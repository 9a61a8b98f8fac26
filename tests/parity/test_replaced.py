"""A job that was replaced by a chain ends, whatever becomes of the chain; a cancelled one stays so. On both engines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from celery import chain, chord, group
from celery.result import AsyncResult

from jobbridge.core.keys import job_id_for
from tests.parity import canvas_tasks  # noqa: F401  (shared tasks, of every app)
from tests.parity.conftest import World
from tests.support import wait_until

HOUR = 3600


def _link(world: World, root: str, name: str = "parity.counts_up") -> dict[str, Any]:
    """Give the link that waits, once it is there."""

    def found() -> dict[str, Any]:
        [row] = world.rows("root_id = %s AND type = %s AND status = 'scheduled'", job_id_for(root), name)
        return row

    return wait_until(lambda: _tried(found))


def _tried(ask: Callable[[], dict[str, Any]]) -> dict[str, Any] | None:
    try:
        return ask()
    except ValueError:
        return None


def _rows_of_chords(world: World, root: str) -> list[dict[str, Any]]:
    """Give those that wait for a job of this root, or were to."""
    return world.looking.rows(
        "SELECT chord_id FROM job_chords WHERE chord_id IN"
        " (SELECT 'replaced:' || job_id FROM jobs WHERE root_id = %s OR job_id = %s"
        "  UNION SELECT chord_id FROM jobs WHERE root_id = %s)",
        [job_id_for(root)] * 3,
    )


def _waiting(world: World, **options: Any) -> Any:
    return world.task("counts_up").s().set(countdown=HOUR, **options)


def test_a_cancelled_job_is_not_revived_by_the_chain_that_replaced_it(world: World) -> None:
    result = world.task("becomes_chain").delay("go")
    wait_until(lambda: world.lines(result.id, "link"))
    world.wait_for_status(result.id, "queued")

    world.app.cancel_job(job_id_for(result.id))
    world.release(result.id)

    link = wait_until(
        lambda: world.rows(
            "root_id = %s AND completed_at IS NOT NULL AND status = 'completed'", job_id_for(result.id)
        )
    )
    assert [row["type"] for row in link] == ["parity.counts_up"]
    row = world.row(result.id)
    assert (row["status"], row["attempt"], row["type"]) == ("cancelled", 1, "parity.becomes_chain")


#: What it is replaced by; a link waits for an hour.
CHAINS: dict[str, Callable[[World], Any]] = {
    "the first link": lambda world: chain(
        world.task("counts_up").s(0).set(countdown=HOUR), world.task("echo").s()
    ),
    "a later link": lambda world: chain(world.task("one").s(), _waiting(world), world.task("echo").s()),
    "behind a group": lambda world: chain(
        group(world.task("one").s(), world.task("one").s()),
        world.task("total").s(),
        _waiting(world),
        world.task("echo").s(),
    ),
    "a part": lambda world: chain(
        group(world.task("one").s(), world.task("counts_up").s(0).set(countdown=HOUR)),
        world.task("total").s(),
        world.task("echo").s(),
    ),
    "a link that replaced itself": lambda world: chain(
        world.task("becomes").s(
            chain(world.task("counts_up").s(0).set(countdown=HOUR), world.task("echo").s())
        ),
        world.task("echo").s(),
    ),
}


@pytest.mark.parametrize("kind", CHAINS)
def test_a_replaced_job_ends_when_a_link_before_its_end_is_cancelled(world: World, kind: str) -> None:
    result = world.task("becomes").delay(CHAINS[kind](world))

    assert world.app.cancel_job(_link(world, result.id)["job_id"])

    row = world.wait_for_status(result.id, "failed")
    assert "cancel" in row["error"] or "revoked" in row["error"].lower(), row["error"]
    assert world.rows("root_id = %s AND completed_at IS NULL", job_id_for(result.id)) == []
    wait_until(lambda: not _rows_of_chords(world, result.id))


def test_a_replaced_job_ends_when_a_link_expires(world: World) -> None:
    first = world.task("counts_up").s(0).set(countdown=1.5, expires=1)
    result = world.task("becomes").delay(chain(first, world.task("echo").s()))

    world.wait_for_status(result.id, "failed")


def test_a_replaced_job_ends_when_a_link_fails(world: World) -> None:
    result = world.task("becomes").delay(chain(world.task("fail").s("no"), world.task("echo").s()))

    assert "no" in world.wait_for_status(result.id, "failed")["error"]


def test_what_was_to_follow_a_replaced_job_ends_with_it(world: World) -> None:
    canvas = chain(world.task("counts_up").s(0).set(countdown=HOUR), world.task("echo").s())
    last = chain(world.task("becomes").s(canvas), world.task("echo").s()).delay()
    part = chord([world.task("becomes").s(canvas), world.task("one").s()], world.task("body").s()).delay()

    for result in (last.parent, part.parent.results[0]):
        assert world.app.cancel_job(_link(world, result.id)["job_id"])

    for result in (last.parent, last, part.parent.results[0], part):
        assert isinstance(result, AsyncResult)
        world.wait_for_status(result.id, "failed")


def test_a_replaced_job_goes_on_and_leaves_nothing_behind(world: World) -> None:
    canvas = chain(
        world.task("one").s(), group(world.task("echo").s(), world.task("echo").s()), world.task("total").s()
    )
    result = chain(world.task("becomes").s(canvas), world.task("echo").s()).delay()

    assert result.get(timeout=30) == 2
    assert _rows_of_chords(world, result.parent.id) == []
