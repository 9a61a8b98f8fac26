"""Others in the namespace seal what they write with keys of their own: it is theirs, and stops nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypeVar
from uuid import uuid4

from temporalio.api.common.v1 import Payload
from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleIntervalSpec,
    ScheduleSpec,
)
from temporalio.converter import DataConverter, PayloadCodec

from jobbridge.core.keys import Engine, job_id_for
from jobbridge.temporal.reconcile.drift import drift
from jobbridge.temporal.reconcile.overdue import overdue_workflows
from jobbridge.temporal.schedules.mirror import MARK, TemporalSchedules, temporal_id
from jobbridge.temporal.schedules.reconciler import ScheduleReconciler
from jobbridge.temporal.wire import contract
from tests.integration.temporal.conftest import TIMEOUT, TemporalWorld
from tests.support import wait_until

T = TypeVar("T")


class TheirCodec(PayloadCodec):
    """Nobody else can read it."""

    async def encode(self, payloads: Iterable[Payload]) -> list[Payload]:
        return [
            Payload(metadata={"encoding": b"binary/theirs"}, data=each.SerializeToString())
            for each in payloads
        ]

    async def decode(self, payloads: Iterable[Payload]) -> list[Payload]:
        return [Payload.FromString(each.data) for each in payloads]


def as_others(world: TemporalWorld, ask: Callable[[Client], Coroutine[Any, Any, T]]) -> T:
    async def connected() -> T:
        converter = replace(DataConverter.default, payload_codec=TheirCodec())
        return await ask(await Client.connect(world.temporal.address, data_converter=converter))

    return asyncio.run(connected())


def test_their_schedules_stop_no_sweep(own_world: TemporalWorld) -> None:
    app, client = own_world.app, own_world.app.delivery("temporal").client
    reconciler = ScheduleReconciler(app, client)
    elsewhere = f"theirs-{uuid4()}"
    with_our_name = uuid4()  # as an installation of ours does whose keys are not here

    async def make(client: Client) -> None:
        for name in (elsewhere, temporal_id(app, with_our_name)):
            action = ScheduleActionStartWorkflow("Theirs", id=name, task_queue="theirs")
            every = ScheduleSpec(intervals=[ScheduleIntervalSpec(every=timedelta(days=30))])
            mark = {"owner": "theirs", "scheduleId": str(with_our_name)}
            await client.create_schedule(name, Schedule(action=action, spec=every), memo={MARK: mark})

    async def listed(client: Client) -> set[str]:
        return {each.id async for each in await client.list_schedules()}

    async def remove(client: Client) -> None:
        for name in (elsewhere, temporal_id(app, with_our_name)):
            await client.get_schedule_handle(name).delete()

    as_others(own_world, make)
    wait_until(
        lambda: {elsewhere, temporal_id(app, with_our_name)} <= as_others(own_world, listed), timeout=TIMEOUT
    )
    app.schedules.create("temporal.echo", "0 1 * * *", {"a": 1}, name="ours", engine=Engine.TEMPORAL)

    assert client.submit(reconciler.converge()).result(timeout=TIMEOUT) == 1
    assert client.submit(reconciler.sweep()).result(timeout=TIMEOUT) == 0

    assert {elsewhere, temporal_id(app, with_our_name)} <= as_others(own_world, listed)
    as_others(own_world, remove)

    async def remove_ours() -> None:
        await TemporalSchedules(app, await client.connected()).remove(app.schedules.find("ours").schedule_id)

    client.submit(remove_ours()).result(timeout=TIMEOUT)


def test_a_schedule_whose_mark_cannot_be_read_is_left_as_it_is(own_world: TemporalWorld) -> None:
    app, client = own_world.app, own_world.app.delivery("temporal").client
    made = app.schedules.create("temporal.echo", "0 1 * * *", {"a": 1}, name="ours", engine=Engine.TEMPORAL)
    name = temporal_id(app, made.schedule_id)

    async def make(client: Client) -> None:
        action = ScheduleActionStartWorkflow("Theirs", id=name, task_queue="theirs")
        every = ScheduleSpec(intervals=[ScheduleIntervalSpec(every=timedelta(days=30))])
        await client.create_schedule(
            name, Schedule(action=action, spec=every), memo={MARK: {"owner": "theirs"}}
        )

    as_others(own_world, make)

    assert client.submit(ScheduleReconciler(app, client).converge()).result(timeout=TIMEOUT) == 0

    assert "made by somebody else" in str(app.schedules.find("ours").mirror_error)
    as_others(own_world, lambda client: client.get_schedule_handle(name).delete())


def test_what_they_started_on_our_queue_is_named_and_stops_no_other_check(own_world: TemporalWorld) -> None:
    app, delivery = own_world.app, own_world.app.delivery("temporal")
    task_queue = own_world.environment["TEMPORAL_JOB_TASK_QUEUE"]
    stranger = str(uuid4())
    ended = own_world.task("temporal.echo").delay("hello").id
    own_world.looking.rows(
        "UPDATE jobs SET status = 'completed', completed_at = now() - interval '1 hour' WHERE job_id = %s RETURNING 1",
        [job_id_for(ended)],
    )

    async def start(client: Client) -> None:
        for workflow_id in (stranger, f"their-{ended}"):
            await client.start_workflow(
                contract.WORKFLOW,
                {"jobName": "temporal.echo", "tenantId": "acme", "data": {}},
                id=workflow_id,
                task_queue=task_queue,
                memo={contract.MESSAGE_MEMO: {"delivery": str(uuid4())}},
            )

    as_others(own_world, start)
    own_world.looking.rows(
        "UPDATE jobs SET external_id = %s WHERE job_id = %s RETURNING 1",
        [f"their-{ended}", job_id_for(ended)],
    )

    wait_until(lambda: any(stranger in each for each in drift(app).workflows), timeout=TIMEOUT)
    assert overdue_workflows(app, delivery, quiet=timedelta(0)) == []
