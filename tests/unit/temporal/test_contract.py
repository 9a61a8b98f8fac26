from __future__ import annotations

import pytest

from jobbridge.temporal.wire import contract
from jobbridge.temporal.wire.contract import (
    ExecuteOrder,
    InvalidJobInput,
    JobInput,
    JobResult,
    Outcome,
    OutcomeKind,
    StatusUpdate,
)
from jobbridge.temporal.wire.signals import CancelRequest, ProgressUpdate, ToldEnd


def test_the_names_on_the_wire_are_fixed() -> None:
    assert contract.WORKFLOW == "genericJobWorkflow"
    assert (contract.CANCEL_JOB, contract.UPDATE_PROGRESS, contract.GET_JOB_STATE) == (
        "cancelJob",
        "updateProgress",
        "getJobState",
    )
    assert contract.EXECUTE_JOB_HANDLER == "executeJobHandler"
    assert (contract.UPDATE_JOB_STATUS, contract.CREATE_JOB_DETAIL, contract.GET_JOB_DATA) == (
        "updateJobStatus",
        "createJobDetail",
        "getJobData",
    )
    assert contract.DEFAULT_TASK_QUEUE == "alga-jobs"


def test_input_has_exactly_the_four_fields() -> None:
    job = JobInput(job_id="1", job_name="greet", tenant_id="t", data={"a": 1})

    assert job.to_json() == {"jobId": "1", "jobName": "greet", "tenantId": "t", "data": {"a": 1}}
    assert JobInput.from_json(job.to_json(), workflow_id="w") == job


def test_input_is_read_tolerantly() -> None:
    job = JobInput.from_json({"jobName": "greet", "more": True}, workflow_id="w")

    assert job == JobInput(job_id="w", job_name="greet", tenant_id=None, data=None)


@pytest.mark.parametrize("document", [None, [], "greet", {}, {"jobName": ""}, {"jobName": 7}])
def test_input_without_a_handler_is_refused(document: object) -> None:
    with pytest.raises(InvalidJobInput):
        JobInput.from_json(document, workflow_id="w")


def test_a_result_leaves_out_what_there_is_not() -> None:
    good = JobResult(success=True, job_id="1", completed_at="now", result=3)
    bad = JobResult(success=False, job_id="1", completed_at="now", error="cancelled")

    assert good.to_json() == {"success": True, "jobId": "1", "result": 3, "completedAt": "now"}
    assert bad.to_json() == {"success": False, "jobId": "1", "error": "cancelled", "completedAt": "now"}


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"reason": "late", "cancelledBy": "ada"}, CancelRequest(reason="late", cancelled_by="ada")),
        ({"reason": None}, CancelRequest(reason="cancelled")),
        ("late", CancelRequest(reason="late")),
        (None, CancelRequest(reason="cancelled")),
    ],
)
def test_a_cancellation_is_understood_however_it_is_sent(document: object, expected: CancelRequest) -> None:
    assert CancelRequest.from_json(document) == expected


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"progress": 40, "message": "half"}, ProgressUpdate(progress=40.0, message="half")),
        ({"progress": 400}, ProgressUpdate(progress=100.0)),
        ({"progress": -1}, ProgressUpdate(progress=0.0)),
        (12.5, ProgressUpdate(progress=12.5)),
        ({"progress": "much"}, None),
        ({"progress": True}, None),
        ({"progress": float("nan")}, None),
        (None, None),
    ],
)
def test_progress_is_between_0_and_100_or_none(document: object, expected: ProgressUpdate | None) -> None:
    assert ProgressUpdate.from_json(document) == expected


def test_progress_that_comes_from_the_row_says_so() -> None:
    update = ProgressUpdate(progress=5, is_recorded=True)

    assert ProgressUpdate.from_json(update.to_json()) == update


def test_orders_outcomes_and_updates_survive_the_wire() -> None:
    job = JobInput(job_id="1", job_name="greet", tenant_id=None, data=[1])
    message = {"id": "1", "dataIs": "arguments"}
    order = ExecuteOrder(job=job, message=message, is_redelivery=True, give_up="no")
    outcome = Outcome(kind=OutcomeKind.CONTINUED, message={"id": "1"}, attempt=2, error="again")
    update = StatusUpdate(job_id="1", tenant_id="t", status="cancelled", reason="r", cancelled_by="b")

    assert ExecuteOrder.from_json(order.to_json(), workflow_id="w") == order
    assert Outcome.from_json(outcome.to_json()) == outcome
    assert StatusUpdate.from_json(update.to_json()) == update


def test_celerys_highest_priority_is_temporals_first() -> None:
    assert [contract.temporal_priority(priority) for priority in (9, 8, 7, 5, 4, 1, 0, None, 99)] == [
        1, 1, 2, 3, 3, 5, 5, 5, 1,
    ]  # fmt: skip


def test_texts_of_signals_are_cut_as_they_come_in() -> None:
    huge = "x" * 2_000_000

    read = (
        CancelRequest.from_json({"reason": huge, "cancelledBy": huge}),
        ProgressUpdate.from_json({"progress": 1, "message": huge}),
        ToldEnd.from_json({"status": "failed", "error": huge, "errorType": huge}),
    )

    assert all(len(str(each)) < 2 * contract.TEXT_LIMIT for each in read)


def test_a_name_is_cut_in_bytes_between_characters() -> None:
    assert contract.cut_name("検" * 300) == "検" * 66


def test_only_a_final_status_is_an_end() -> None:
    assert ToldEnd.from_json({"status": "processing"}) is None
    assert ToldEnd.from_json("completed") is None
    end = ToldEnd(status="failed", error="ValueError: no", error_type="ValueError")
    assert ToldEnd.from_json(end.to_json()) == end


@pytest.mark.parametrize(
    ("details", "is_so"),
    [
        ((), False),
        (("somebody's own",), False),
        (({"acknowledged": False, "delivery": "a"},), False),
        (({"acknowledged": True, "delivery": "a"},), True),
        (({"acknowledged": True, "delivery": "b"},), False),  # the job has gone on by another message since
        (({"acknowledged": True},), True),  # of an earlier release
    ],
)
def test_what_was_acknowledged_is_one_message(details: tuple[object, ...], is_so: bool) -> None:
    assert contract.was_acknowledged(details, "a") is is_so


def test_what_was_acknowledged_may_be_whichever_message() -> None:
    assert contract.was_acknowledged(({"acknowledged": True, "delivery": "b"},), None)
    assert not contract.was_acknowledged(({"acknowledged": False, "delivery": "b"},), None)
