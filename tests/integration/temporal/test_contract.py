"""The wire contract, driven by Temporal's own CLI: what a client in any language sees."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jobbridge.dev.process import DevServerError
from tests.integration.temporal.conftest import TIMEOUT, TemporalWorld
from tests.support import wait_until


def test_a_foreign_client_runs_a_handler_and_reads_its_result(world: TemporalWorld) -> None:
    job_id = world.start_workflow("temporal.echo", {"word": "hello"}, tenantId="acme")

    result = world.result(job_id)
    assert result == {
        "success": True,
        "jobId": job_id,
        "result": {"data": {"word": "hello"}, "tenant": "acme"},
        "completedAt": result["completedAt"],
    }
    row = world.row(job_id)
    assert (row["status"], row["tenant"], row["runner_type"]) == ("completed", "acme", "temporal")
    assert row["external_id"] == job_id
    assert row["external_run_id"]
    assert row["metadata"]["data"] == {"word": "hello"}


def test_a_foreign_client_may_give_plain_tasks_their_arguments(world: TemporalWorld) -> None:
    job_id = world.start_workflow("parity.add", {"args": [2, 3]})

    assert world.result(job_id)["result"] == 5


def test_a_workflow_under_another_id_carries_the_job_of_its_input(world: TemporalWorld) -> None:
    job_id, workflow_id = str(uuid.uuid4()), f"invoice-{uuid.uuid4().hex}"
    world.cli(
        "workflow", "start", "--type", "genericJobWorkflow", "--workflow-id", workflow_id,
        "--task-queue", world.environment["TEMPORAL_JOB_TASK_QUEUE"],
        "--input", f'{{"jobId": "{job_id}", "jobName": "parity.fails_twice", "tenantId": null, "data": {{}}}}',
    )  # fmt: skip

    assert world.result(workflow_id)["jobId"] == job_id
    row = world.row(job_id)
    assert (row["status"], row["attempt"], row["external_id"]) == ("completed", 3, workflow_id)


def test_retries_are_executions_of_the_same_workflow(world: TemporalWorld) -> None:
    result = world.task("parity.retry_until").delay(2)

    assert result.get(timeout=TIMEOUT) == 3
    world.wait_for_closed(result.id, "COMPLETED")
    kinds = [event["eventType"].removeprefix("EVENT_TYPE_") for event in world.history(result.id)]
    assert kinds.count("ACTIVITY_TASK_SCHEDULED") == 3
    assert kinds.count("TIMER_STARTED") == 2
    assert world.row(result.id)["attempt"] == 3


def test_a_failed_job_is_a_failed_workflow_with_the_handlers_error_and_traceback(
    world: TemporalWorld,
) -> None:
    result = world.task("parity.fail").delay("out of paper")
    world.wait_for_closed(result.id, "FAILED")

    failure = world.history(result.id)[-1]["workflowExecutionFailedEventAttributes"]["failure"]
    assert failure["message"] == "out of paper"
    assert failure["applicationFailureInfo"]["type"] == "ValueError"
    assert "raise ValueError(text)" in failure["stackTrace"]
    assert world.row(result.id)["status"] == "failed"
    assert world.state(result.id)["step"] == "failed"


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ('{"jobId": "1"}', "names no handler"),
        ('"hello"', "must be an object"),
        ("[1, 2]", "must be an object"),
        (None, "must be an object"),
    ],
)
def test_input_that_does_not_follow_the_contract_fails_with_what_is_wrong(
    world: TemporalWorld, document: str | None, said: str
) -> None:
    workflow_id = f"bad-{uuid.uuid4().hex}"
    given = [] if document is None else ["--input", document]
    world.cli(
        "workflow", "start", "--type", "genericJobWorkflow", "--workflow-id", workflow_id,
        "--task-queue", world.environment["TEMPORAL_JOB_TASK_QUEUE"], *given,
    )  # fmt: skip

    world.wait_for_closed(workflow_id, "FAILED")
    failure = world.history(workflow_id)[-1]["workflowExecutionFailedEventAttributes"]["failure"]
    assert said in failure["message"]


_MESSAGE: dict[str, Any] = {
    "id": "1", "task": "parity.add", "tenant": "t", "delivery": "d", "queue": "celery", "headers": {},
}  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "memo", "said"),
    [
        ({"tenantId": 7}, None, "tenantId is 7"),
        ({"tenantId": ["t"]}, None, "tenantId is"),
        ({"tenantId": "a\x00b"}, None, "NUL"),
        ({"tenantId": "acme\u200b"}, None, "cannot be a tenant: nobody sees its character U+200B"),
        ({"tenantId": None, "data": {"tenantId": "\uff41cme"}}, None, "it is another form of 'acme'"),
        ({"jobId": "a\x00b"}, None, "NUL"),
        ({"jobId": {"a": 1}}, None, "jobId is"),
        ({"jobName": "parity.add\x00"}, None, "NUL"),
        ({"jobName": 5}, None, "names no handler"),
        ({"data": {"args": 5}}, None, "args is 5"),
        ({"data": {"args": "ab"}}, None, "args is 'ab'"),
        ({"data": {"args": [1, 2], "kwargs": [1]}}, None, "kwargs is"),
        ({}, {"celery": "text"}, "must be an object"),
        ({}, {"celery": {**_MESSAGE, "eta": "tomorrow"}}, "eta is 'tomorrow'"),
        ({}, {"celery": {**_MESSAGE, "eta": 5}}, "eta is 5"),
        ({}, {"celery": {**_MESSAGE, "eta": "9999-12-31T23:59:59-14:00"}}, "no instant"),
        ({}, {"celery": {**_MESSAGE, "timelimit": ["soon", None]}}, "timelimit"),
        ({}, {"celery": {**_MESSAGE, "priority": "high"}}, "priority"),
        ({}, {"celery": {"task": "parity.add"}}, "cannot be read"),
        ({}, {"celery": {**_MESSAGE, "headers": [1]}}, "cannot be read"),
        ({}, {"celery": {**_MESSAGE, "body": "no base64"}}, "cannot be read"),
        ({}, {"carried": "text"}, ""),
    ],
)
def test_a_workflow_that_is_started_by_hand_with_nonsense_fails_and_says_why(
    world: TemporalWorld, fields: dict[str, Any], memo: dict[str, Any] | None, said: str
) -> None:
    workflow_id = f"bad-{uuid.uuid4().hex}"
    document = {"jobName": "parity.add", "data": {"args": [1, 2]}, **fields}
    memos = [
        each for name, value in (memo or {}).items() for each in ("--memo", f"{name}={json.dumps(value)}")
    ]
    world.cli(
        "workflow", "start", "--type", "genericJobWorkflow", "--workflow-id", workflow_id,
        "--task-queue", world.environment["TEMPORAL_JOB_TASK_QUEUE"], "--input", json.dumps(document), *memos,
    )  # fmt: skip

    world.wait_for_closed(workflow_id, "FAILED")
    failure = world.history(workflow_id)[-1]["workflowExecutionFailedEventAttributes"]["failure"]
    assert said in json.dumps(failure, ensure_ascii=False)


#: Temporal carries 2 MB in a payload, and what a workflow tells is longer than what it was told.
_AS_LONG_AS_CAN_BE = "x" * (2 * 1024 * 1024 - 100)


def test_a_reason_as_long_as_temporal_carries_ends_the_workflow_all_the_same(world: TemporalWorld) -> None:
    result = world.task("parity.add").apply_async((1, 1), countdown=3600)
    handle = world.app.delivery("temporal").client

    handle.call(lambda client: client.get_workflow_handle(result.id).signal("cancelJob", _AS_LONG_AS_CAN_BE))

    world.wait_for_closed(result.id, "COMPLETED")
    assert "characters are left out" in world.result(result.id)["error"]
    assert world.row(result.id)["status"] == "cancelled"


def test_an_input_as_long_as_temporal_carries_that_cannot_be_read_fails_the_workflow(
    world: TemporalWorld,
) -> None:
    workflow_id = f"bad-{uuid.uuid4().hex}"
    queue = world.environment["TEMPORAL_JOB_TASK_QUEUE"]

    world.app.delivery("temporal").client.call(
        lambda client: client.start_workflow(
            "genericJobWorkflow", _AS_LONG_AS_CAN_BE, id=workflow_id, task_queue=queue
        )
    )

    world.wait_for_closed(workflow_id, "FAILED")


def test_an_error_longer_than_temporal_carries_is_whole_in_the_row_and_cut_there(
    world: TemporalWorld,
) -> None:
    result = world.task("temporal.fails_with").delay(3_000_000)

    world.wait_for_closed(result.id, "FAILED")
    failure = json.dumps(world.history(result.id)[-1])
    assert "characters are left out" in failure
    assert len(failure) < 200_000
    assert len(world.row(result.id)["error"]) > 3_000_000


def test_an_eta_without_a_zone_is_utc_as_celery_reads_it(world: TemporalWorld) -> None:
    eta = (datetime.now(UTC) + timedelta(seconds=2)).replace(tzinfo=None)

    result = world.task("parity.add").apply_async((1, 2), eta=eta)

    row = world.wait_for_status(result.id, "completed")
    assert row["run_at"] == eta.replace(tzinfo=UTC)
    assert row["started_at"] >= row["run_at"]


def test_an_unknown_handler_fails_workflow_and_row_and_names_the_nearest(world: TemporalWorld) -> None:
    job_id = world.start_workflow("temporal.ecko", {})

    world.wait_for_closed(job_id, "FAILED")
    failure = world.history(job_id)[-1]["workflowExecutionFailedEventAttributes"]["failure"]
    assert "Did you mean 'temporal.echo'?" in failure["message"]
    row = world.wait_for_status(job_id, "failed")
    assert (row["type"], row["runner_type"], row["external_id"]) == ("temporal.ecko", "temporal", job_id)


def test_data_that_does_not_fit_fails_workflow_and_row(world: TemporalWorld) -> None:
    job_id = world.start_workflow("parity.greet", {"times": 1}, tenantId="acme")

    world.wait_for_closed(job_id, "FAILED")
    assert "name" in world.wait_for_status(job_id, "failed")["error"]


def test_cancel_job_by_signal_reaches_running_code_and_is_no_failure(world: TemporalWorld) -> None:
    job_id = world.start_workflow("parity.long", {})
    world.wait_for_start(job_id, "long.started")

    world.signal(job_id, "cancelJob", {"reason": "not needed", "cancelledBy": "ada"})

    result = world.result(job_id)
    assert (result["success"], result["error"]) == (False, "cancelled: not needed")
    row = world.row(job_id)
    assert (row["status"], row["cancel_reason"], row["cancelled_by"]) == ("cancelled", "not needed", "ada")
    assert world.lines(job_id, "long.finished") == []
    assert world.state(job_id)["step"] == "cancelled"


def test_a_job_that_waits_for_its_retry_is_cancelled_at_once(world: TemporalWorld) -> None:
    result = world.task("parity.retry_slowly").delay()
    wait_until(lambda: world.state(result.id)["step"] == "retrying", timeout=TIMEOUT, every=0.2)

    world.signal(result.id, "cancelJob", {"reason": "enough"})

    world.wait_for_closed(result.id, "COMPLETED")
    assert world.row(result.id)["status"] == "cancelled"


def test_a_job_that_is_not_due_is_cancelled_at_once(world: TemporalWorld) -> None:
    result = world.task("parity.add").apply_async((1, 1), countdown=3600)
    wait_until(lambda: world.status(result.id) == "RUNNING", timeout=TIMEOUT, every=0.2)

    world.signal(result.id, "cancelJob", {"reason": "enough"})

    world.wait_for_closed(result.id, "COMPLETED")
    assert world.row(result.id)["status"] == "cancelled"


def test_temporals_own_cancel_ends_workflow_and_row_as_cancelled(world: TemporalWorld) -> None:
    job_id = world.start_workflow("parity.long", {})
    world.wait_for_start(job_id, "long.started")

    world.temporal.run_cli("workflow", "cancel", "--workflow-id", job_id)

    world.wait_for_closed(job_id, "CANCELED")
    assert world.row(job_id)["status"] == "cancelled"


def test_the_query_shows_what_the_handler_reports(world: TemporalWorld) -> None:
    result = world.task("temporal.progressing").delay({})
    world.wait_for_start(result.id)

    state = wait_until(
        lambda: (state := world.state(result.id))["progress"] == 25 and state, timeout=TIMEOUT, every=0.2
    )
    assert (state["step"], state["message"], state["attempt"]) == ("processing", "a quarter", 1)
    assert "startedAt" in state

    world.release(result.id)
    world.wait_for_closed(result.id, "COMPLETED")
    state = world.state(result.id)
    assert (state["step"], state["progress"]) == ("completed", 100)


def test_progress_by_signal_reaches_query_and_row(world: TemporalWorld) -> None:
    result = world.task("temporal.steady").delay()
    world.wait_for_start(result.id)

    world.signal(result.id, "updateProgress", {"progress": 60, "message": "from outside"})
    world.signal(result.id, "updateProgress", {"progress": "much"})

    wait_until(lambda: world.row(result.id)["progress"] == 60, timeout=TIMEOUT)
    assert world.row(result.id)["progress_message"] == "from outside"
    assert world.state(result.id)["progress"] == 60
    world.release(result.id)
    assert result.get(timeout=TIMEOUT) == 1


def test_a_workflow_that_never_was_cannot_be_queried(world: TemporalWorld) -> None:
    with pytest.raises(DevServerError):
        world.state("nobody")
