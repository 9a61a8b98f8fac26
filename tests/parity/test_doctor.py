"""What the doctor reads in the rows that workers wrote."""

from __future__ import annotations

import uuid
from datetime import timedelta

from jobbridge.store.monitor.health import HealthStore
from tests.parity.conftest import World


def test_the_doctor_knows_a_task_that_a_worker_refused(world: World) -> None:
    name = f"no.such.{uuid.uuid4().hex[:8]}"

    sent = world.app.send_task(name)

    world.wait_for_status(sent.id, "failed")
    refused = HealthStore(world.app.database).unknown_tasks(within=timedelta(hours=1))
    assert name in [each.task for each in refused]
