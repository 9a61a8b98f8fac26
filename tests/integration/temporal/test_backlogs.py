"""What waits in Temporal's queues, where it answers for some of them only."""

from __future__ import annotations

from jobbridge.core.keys import Engine
from jobbridge.diagnosis.queues import look
from tests.integration.temporal.conftest import TemporalWorld
from tests.job_events import EventsOf
from tests.support import wait_until


def test_what_is_known_is_told_when_a_queue_has_no_answer(own_world: TemporalWorld) -> None:
    refused = "q" * 1500  # longer than Temporal takes
    own_world.app.recorder.record(EventsOf(engine=Engine.TEMPORAL).submitted(queue=refused))
    for number in range(2):
        own_world.task("temporal.echo").apply_async(args=[{"number": number}])

    def known() -> bool:
        page = look(own_world.app, [])
        assert "answered for 1 of 2 queues" in page.problem
        waiting = {(queue.name, each.engine): each.ready for queue in page.queues for each in queue.waiting}
        assert waiting[("celery", Engine.TEMPORAL)] == 2
        assert waiting[(refused, Engine.TEMPORAL)] is None
        return True

    wait_until(known)
