from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from jobbridge import Celery
from jobbridge.core.envelope import HEADER, Envelope
from jobbridge.core.keys import JobKey, TenantId, job_id_for
from jobbridge.settings import load_settings
from jobbridge.temporal.wire.contract import PAYLOAD_LIMIT, ExecuteOrder, JobInput
from jobbridge.temporal.wire.messages import MissingMessage, continuation, envelope_of, to_temporal
from jobbridge.temporal.wire.references import DATA_REFERENCE, INLINE_LIMIT, carried, needs_data
from jobbridge.temporal.worker.execution import Execution, SettlementKind
from jobbridge.temporal.worker.incoming import message_for

ID = "7f1f3c1e-7c52-4f0a-9e0f-0f6a8f4f8a11"
EMBED = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


def _add(x: int, y: int) -> int:
    return x + y


@pytest.fixture(scope="module")
def app() -> Celery:
    app = Celery("messages", settings=load_settings({}), set_as_current=False)
    app.task(name="add")(_add)
    app.finalize()
    return app


def _envelope(**changes: Any) -> Envelope:
    envelope = Envelope(
        id=ID,
        task="add",
        tenant="acme",
        delivery="0c8f1f1e-9d8b-4c69-8f3c-8c1d2e3f4a5b",
        queue="celery",
        headers={"task": "add", "id": ID, "retries": 0, HEADER: {"tenant": "acme"}},
        properties={"correlation_id": ID},
        arguments=[[2], {"y": 3}, EMBED],
    )
    return replace(envelope, **changes)


def _read_back(app: Celery, envelope: Envelope, *, is_handler: bool = False, stored: Any = None) -> Envelope:
    job, message = to_temporal(envelope, is_handler=is_handler)
    order = ExecuteOrder.from_json(ExecuteOrder(job=job, message=message).to_json(), workflow_id=ID)
    return envelope_of(order, app, queue="celery", run_id="run", load=lambda key: stored)


def test_arguments_become_readable_data_and_come_back(app: Celery) -> None:
    job, message = to_temporal(_envelope(), is_handler=False)

    assert job.to_json() == {
        "jobId": ID,
        "jobName": "add",
        "tenantId": "acme",
        "data": {"args": [2], "kwargs": {"y": 3}},
    }
    assert message["arguments"] == [None, None, EMBED]
    assert _read_back(app, _envelope()) == _envelope()


def test_a_handlers_data_is_the_workflows_data(app: Celery) -> None:
    envelope = _envelope(arguments=[[{"name": "Ada"}], {}, EMBED])

    assert to_temporal(envelope, is_handler=True)[0].data == {"name": "Ada"}
    assert _read_back(app, envelope, is_handler=True) == envelope


def test_encoded_content_travels_in_the_memo(app: Celery) -> None:
    envelope = _envelope(arguments=None, body="gASVBg==", content_type="application/x-python-serialize")

    assert to_temporal(envelope, is_handler=False)[0].data is None
    assert _read_back(app, envelope) == envelope


def test_large_content_travels_by_reference(app: Celery) -> None:
    envelope = _envelope(arguments=[["x" * PAYLOAD_LIMIT], {}, EMBED])

    job, message = to_temporal(envelope, is_handler=False)
    assert job.data == DATA_REFERENCE
    assert len(str(message)) < 1000
    assert _read_back(app, envelope, stored=envelope.to_json()) == envelope


@pytest.mark.parametrize("stored", [None, _envelope(delivery="another").to_json()])
def test_a_reference_to_what_is_gone_is_an_error_that_says_so(app: Celery, stored: Any) -> None:
    with pytest.raises(MissingMessage, match="does not hold the message"):
        _read_back(app, _envelope(arguments=[["x" * PAYLOAD_LIMIT], {}, EMBED]), stored=stored)


def test_a_continuation_is_passed_on_whole_unless_it_is_large() -> None:
    small, large = _envelope().to_json(), _envelope(arguments=[["x" * INLINE_LIMIT], {}, EMBED]).to_json()

    assert continuation(small) == small
    assert "arguments" not in continuation(large)
    assert continuation(large)["delivery"] == large["delivery"]


def test_what_is_not_small_is_readable_in_the_input_and_goes_to_activities_by_reference(app: Celery) -> None:
    envelope = _envelope(arguments=[["x" * INLINE_LIMIT], {}, EMBED])

    job, message = to_temporal(envelope, is_handler=False)
    ordered = carried(message)

    assert job.data["args"] == ["x" * INLINE_LIMIT]
    assert needs_data(message)
    assert not needs_data(ordered)
    order = ExecuteOrder(job=job, message=ordered).to_json()
    assert len(str(order)) < 1000
    read = ExecuteOrder.from_json(order, workflow_id=ID)
    assert envelope_of(read, app, queue="celery", run_id="r", load=lambda key: envelope.to_json()) == envelope


def test_a_foreign_start_becomes_a_message_of_its_run(app: Celery) -> None:
    job = JobInput(job_id=ID, job_name="add", tenant_id=None, data={"args": [1, 2]})

    envelope = envelope_of(ExecuteOrder(job=job), app, queue="celery", run_id="run", load=lambda key: None)

    assert envelope.arguments == [[1, 2], {}, EMBED]
    assert envelope.delivery == "run"
    assert envelope.headers[HEADER]["engine"] == "temporal"


def test_the_message_settles_its_execution(app: Celery) -> None:
    execution = Execution(
        key=JobKey(tenant=TenantId("acme"), job_id=job_id_for(ID)),
        task_id=ID,
        task_name="add",
        delivery="d",
        workflow_id="w",
        run_id="r",
    )
    message = message_for(_envelope(), execution, app, is_redelivery=True)

    assert message.payload == [[2], {"y": 3}, EMBED]
    assert message.delivery_info["redelivered"] is True
    assert message.headers[HEADER]["external_run_id"] == "r"
    message.reject(requeue=True)
    assert execution.settled.result(timeout=1).kind is SettlementKind.REQUEUED


def test_what_nobody_could_read_is_a_failure_although_celery_acknowledges_it(app: Celery) -> None:
    execution = Execution(
        key=JobKey(tenant=TenantId("acme"), job_id=job_id_for(ID)),
        task_id=ID,
        task_name="add",
        delivery="d",
        workflow_id="w",
        run_id="r",
    )
    message_for(_envelope(), execution, app, is_redelivery=False).ack()

    settlement = execution.settled.result(timeout=1)
    assert (settlement.kind, settlement.error_type) == (SettlementKind.FAILED, "InvalidTaskError")
