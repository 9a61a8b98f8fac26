"""What an attempt of an activity without a workflow knows of those before it, and how it ends."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from temporalio import activity
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from jobbridge.temporal.wire.contract import (
    ACKNOWLEDGED,
    BEGUN,
    DELIVERY,
    Outcome,
    OutcomeKind,
    was_acknowledged,
)
from jobbridge.temporal.worker.light import LightAttempt
from jobbridge.temporal.workflows.execution import MAX_LOST

_RUNNING = {ACKNOWLEDGED: False, BEGUN: True}


def _info(number: int, *details: Any) -> activity.Info:
    return replace(
        ActivityEnvironment.default_info(),
        activity_id="job", activity_run_id="run", workflow_id=None, workflow_run_id=None, workflow_type=None,
        attempt=number, heartbeat_details=details,
    )  # fmt: skip


def _attempt(number: int, *details: Any) -> LightAttempt:
    attempt = LightAttempt.of(_info(number, *details))
    assert attempt is not None
    return attempt


def _end(attempt: LightAttempt, outcome: Outcome) -> tuple[ApplicationError, Any]:
    """Give the error by which it ends, and what the next attempt is told."""
    environment, told = ActivityEnvironment(), []
    environment.on_heartbeat = told.append

    def end() -> Any:
        with pytest.raises(ApplicationError) as raised:
            attempt.end(outcome, "job", is_cancelled=False)
        return raised.value

    return environment.run(end), told[-1]


def test_an_activity_of_a_workflow_is_none() -> None:
    assert LightAttempt.of(ActivityEnvironment.default_info()) is None


@pytest.mark.parametrize(
    ("details", "counts"),
    [
        ((), (1, 0)),  # it fell silent before it said anything
        ((_RUNNING,), (1, 0)),
        (({**_RUNNING, "lost": 2, "requeued": 1},), (3, 1)),
        (({ACKNOWLEDGED: False, BEGUN: False, "lost": 2},), (2, 1)),
        (({"ended": 4, "how": "continued", "lost": 0, "requeued": 0},), (1, 0)),  # of the one before
        (("somebody's own",), (1, 0)),
    ],
)
def test_who_fell_silent_is_counted(details: tuple[Any, ...], counts: tuple[int, int]) -> None:
    attempt = _attempt(6, *details)

    assert (attempt.lost, attempt.requeued) == counts
    assert attempt.is_redelivery
    assert attempt.may_have_gone_on


@pytest.mark.parametrize(
    ("kind", "counts", "is_redelivery"),
    [
        (OutcomeKind.CONTINUED, (0, 0), False),
        (OutcomeKind.RELEASED, (1, 1), True),
        (OutcomeKind.REQUEUED, (1, 2), True),
        (OutcomeKind.LOST, (2, 1), True),
    ],
)
def test_an_attempt_tells_the_next_one_how_it_ended(
    kind: OutcomeKind, counts: tuple[int, int], is_redelivery: bool
) -> None:
    before = _attempt(3, {**_RUNNING, "lost": 0, "requeued": 1})  # and one more was lost

    error, told = _end(before, Outcome(kind=kind))

    after = _attempt(4, told)
    assert (after.lost, after.requeued, after.is_redelivery) == (*counts, is_redelivery)
    assert not error.non_retryable
    assert error.next_retry_delay is not None


def test_that_a_message_must_not_run_twice_is_told_on_until_its_row_can_be_read() -> None:
    begun = {ACKNOWLEDGED: True, BEGUN: True, DELIVERY: "a", "lost": 0, "requeued": 0}

    _, unread = _end(_attempt(2, begun), Outcome(kind=OutcomeKind.REQUEUED))
    _, again = _end(_attempt(3, unread), Outcome(kind=OutcomeKind.REQUEUED))
    _, goes_on = _end(_attempt(3, unread), Outcome(kind=OutcomeKind.CONTINUED, message={}))

    assert (was_acknowledged([again], "a"), was_acknowledged([again], "b")) == (True, False)
    assert not was_acknowledged([goes_on], "a")


def test_a_retry_for_later_is_made_then() -> None:
    eta = datetime.now(UTC) + timedelta(minutes=5)
    outcome = Outcome(kind=OutcomeKind.CONTINUED, message={"eta": eta.isoformat()})
    attempt = _attempt(1)

    assert attempt.pause_before_the_next(outcome) is None
    error, _ = _end(attempt, outcome)

    assert error.next_retry_delay is not None
    assert timedelta(minutes=4) < error.next_retry_delay <= timedelta(minutes=5)
    assert attempt.pause_before_the_next(Outcome(kind=OutcomeKind.CONTINUED, message={})) == timedelta()


def test_too_many_losses_are_the_end() -> None:
    attempt = _attempt(9, {**_RUNNING, "lost": MAX_LOST - 2})
    assert (attempt.is_last, attempt.give_up) == (True, None)

    _, told = _end(attempt, Outcome(kind=OutcomeKind.LOST))

    assert _attempt(10, told).give_up is not None


def test_an_input_that_no_job_can_have_is_not_tried_again() -> None:
    for document in (None, {}, {"jobName": 3}, {"jobName": "x", "tenantId": 3}, {"jobName": "x\x00"}):
        with pytest.raises(ApplicationError) as raised:
            _attempt(1).order(document, "job")
        assert (raised.value.type, raised.value.non_retryable) == ("InvalidJobInput", True)


def test_a_cancelled_one_ends_as_it_was_cancelled() -> None:
    outcome = Outcome(kind=OutcomeKind.CANCELLED, error="enough")

    with pytest.raises(asyncio.CancelledError):
        _attempt(1).end(outcome, "job", is_cancelled=True)
    answer = _attempt(1).end(outcome, "job", is_cancelled=False)

    assert (answer["success"], answer["error"]) == (False, "cancelled: enough")
