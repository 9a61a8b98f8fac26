"""What a worker does before its first job, and which queues it serves."""

from __future__ import annotations

from tests.parity.conftest import World

TIMEOUT = 30


def test_handlers_are_loaded_before_the_first_job_is_taken_and_each_queue_is_served(own_world: World) -> None:
    queues = ["celery", "reports", "mail"]
    waiting = [
        own_world.app.send_task("parity.slow_to_import", [{"queue": queue}], queue=queue) for queue in queues
    ]
    unserved = own_world.app.send_task("parity.slow_to_import", [{}], queue="nobody")

    own_world.starters[own_world.engine](
        "tests.parity.slow_app", "-Q", ",".join(queues), **own_world.environment
    )

    for queue, result in zip(queues, waiting, strict=True):
        assert result.get(timeout=TIMEOUT) == {"queue": queue, "engine": own_world.engine.value}
        row = own_world.row(result.id)
        assert (row["attempt"], row["status"], row["queue"]) == (1, "completed", queue)
    assert own_world.row(unserved.id)["status"] == "queued"
