from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobbridge.core.events import Completed, Continuation, JobEvent, Started, Submitted
from jobbridge.core.machine import Decision, JobState, decide
from jobbridge.core.status import FINAL, WAITING, JobStatus
from tests.job_events import FAR_AHEAD, FIRST, LONG_AGO, SECOND, EventsOf, any_events

NOW = datetime(2026, 1, 1, tzinfo=UTC)
JOB = EventsOf()

PENDING = JobStatus.PENDING


def run(
    events: Sequence[JobEvent], state: JobState | None = None
) -> list[tuple[JobState | None, JobEvent, Decision]]:
    """Apply events one after the other; give each with the state before it."""
    seen = []
    for event in events:
        decision = decide(state, event, now=NOW)
        seen.append((state, event, decision))
        state = decision.state
    return seen


def outcome(*events: JobEvent) -> JobState:
    state = run(events)[-1][2].state
    assert state is not None
    return state


def last(*events: JobEvent) -> Decision:
    return run(events)[-1][2]


# -- what each event does


def test_a_suspended_attempt_waits_and_goes_on_by_its_number() -> None:
    waits: list[JobEvent] = [JOB.submitted(), JOB.started(), JOB.suspended(SECOND)]

    assert outcome(*waits) == JobState(status=JobStatus.WAITING, attempt=0, delivery=SECOND)
    assert outcome(*waits, JOB.started(SECOND)).attempt == 1
    assert not last(*waits, JOB.started(FIRST)).applied, "its old message has come again"
    assert not last(*waits, JOB.completed(1)).applied, "what was before it has nothing to say any more"
    asleep = JOB.suspended(SECOND, status=JobStatus.SCHEDULED, run_at=FAR_AHEAD)
    assert outcome(JOB.submitted(), JOB.started(), asleep).status is JobStatus.SCHEDULED


def test_a_job_is_made_queued_runs_and_completes() -> None:
    assert outcome(JOB.submitted()).status is JobStatus.QUEUED
    assert outcome(JOB.submitted(), JOB.started()) == JobState(
        status=JobStatus.PROCESSING, attempt=1, delivery=FIRST
    )
    assert outcome(JOB.submitted(), JOB.started(), JOB.completed()).status is JobStatus.COMPLETED


def test_what_is_not_due_is_scheduled() -> None:
    assert outcome(JOB.submitted(run_at=FAR_AHEAD)).status is JobStatus.SCHEDULED
    assert outcome(JOB.submitted(run_at=LONG_AGO)).status is JobStatus.QUEUED
    pending = JOB.submitted(run_at=FAR_AHEAD, status=PENDING)
    assert outcome(pending).status is PENDING
    assert outcome(pending, JOB.accepted()).status is JobStatus.SCHEDULED


def test_acceptance_that_comes_after_the_start_changes_no_status() -> None:
    decision = last(JOB.submitted(status=PENDING), JOB.started(), JOB.accepted())

    assert decision.applied
    assert decision.state is not None
    assert decision.state.status is JobStatus.PROCESSING


def test_acceptance_of_an_older_delivery_is_refused() -> None:
    decision = last(JOB.submitted(), JOB.started(), JOB.submitted(SECOND, retry_of=1), JOB.accepted(FIRST))

    assert not decision.applied


def test_a_cancelled_job_is_not_revived() -> None:
    decision = last(JOB.submitted(), JOB.started(), JOB.replaced(), JOB.cancelled(), JOB.submitted(SECOND))

    assert (decision.applied, decision.outcome) == (False, "duplicate")


@pytest.mark.parametrize("end", [JOB.completed(), JOB.failed(), JOB.failed(None)])
def test_a_job_that_ended_may_be_sent_anew_and_counts_on(end: JobEvent) -> None:
    again = last(JOB.submitted(), JOB.started(), end, JOB.submitted(SECOND))

    assert again.outcome == "restarted"
    assert (
        outcome(JOB.submitted(), JOB.started(), end, JOB.submitted(SECOND), JOB.started(SECOND)).attempt == 2
    )


def test_a_job_that_waits_is_not_sent_twice() -> None:
    assert last(JOB.submitted(), JOB.submitted(SECOND)).outcome == "duplicate"
    assert last(JOB.submitted(), JOB.started(), JOB.submitted(SECOND)).outcome == "duplicate"


def test_a_submission_recorded_twice_counts_once_even_when_the_job_has_ended() -> None:
    decision = last(JOB.submitted(), JOB.started(), JOB.completed(), JOB.submitted())

    assert (decision.applied, decision.outcome) == (False, "repeated")


def test_a_job_that_no_engine_has_may_fall_back_and_its_first_delivery_does_not_start() -> None:
    fallen: list[JobEvent] = [JOB.submitted(status=PENDING), JOB.fell_back(FIRST, SECOND)]

    assert outcome(*fallen) == JobState(status=JobStatus.QUEUED, delivery=SECOND)
    assert not last(*fallen, JOB.started(FIRST)).applied
    assert not last(*fallen, JOB.accepted(FIRST)).applied
    assert outcome(*fallen, JOB.started(SECOND)).attempt == 1


def test_a_parent_waits_for_its_children_without_a_delivery() -> None:
    waiting = outcome(JOB.submitted(), JOB.started(), JOB.awaits_children())

    assert waiting == JobState(status=JobStatus.PROCESSING, attempt=1, delivery=None)
    again = last(JOB.submitted(), JOB.started(), JOB.awaits_children(), JOB.started())
    assert not again.applied, "its old message has come again"
    resumed = JOB.submitted(SECOND, continues=Continuation(attempt=1, is_retry=False))
    assert outcome(
        JOB.submitted(), JOB.started(), JOB.awaits_children(), resumed, JOB.started(SECOND)
    ) == JobState(status=JobStatus.PROCESSING, attempt=2, delivery=SECOND)
    stray = last(JOB.submitted(), JOB.started(), JOB.awaits_children(), JOB.cancelled(), resumed)
    assert not stray.applied, "a cancelled parent is not revived by its last child"


@pytest.mark.parametrize("later", [JOB.accepted(), JOB.started(), JOB.cancelled()])
def test_a_job_that_its_engine_has_does_not_fall_back(later: JobEvent) -> None:
    assert not last(JOB.submitted(status=PENDING), later, JOB.fell_back(FIRST, SECOND)).applied


def test_a_retry_waits_under_its_new_delivery_and_shuts_out_the_old_one() -> None:
    retried: list[JobEvent] = [JOB.submitted(), JOB.started(), JOB.submitted(SECOND, retry_of=1)]

    assert outcome(*retried) == JobState(status=JobStatus.RETRYING, attempt=1, delivery=SECOND)
    assert not last(*retried, JOB.started(FIRST)).applied
    assert outcome(*retried, JOB.started(SECOND)).attempt == 2


def test_a_retry_keeps_its_error_although_its_message_came_first() -> None:
    assert last(
        JOB.submitted(), JOB.started(), JOB.submitted(SECOND, retry_of=1), JOB.attempt_failed()
    ).applied


def test_replacing_a_task_queues_it_anew() -> None:
    state = outcome(JOB.submitted(), JOB.started(), JOB.replaced_by(SECOND, attempt=1))

    assert state == JobState(status=JobStatus.QUEUED, attempt=1, delivery=SECOND)


def test_a_job_replaced_by_a_chain_takes_the_message_of_the_chains_last_task() -> None:
    replaced: list[JobEvent] = [JOB.submitted(), JOB.started(), JOB.replaced()]

    assert outcome(*replaced) == JobState(status=JobStatus.QUEUED, attempt=1, delivery=None)
    assert last(*replaced, JOB.submitted(SECOND)).outcome == "adopted"
    assert not last(*replaced, JOB.started()).applied  # the old message, again


def test_a_cancelled_attempt_cannot_revive_its_job_by_a_retry() -> None:
    decision = last(JOB.submitted(), JOB.started(), JOB.cancelled(), JOB.submitted(SECOND, retry_of=1))

    assert (decision.applied, decision.outcome) == (False, "duplicate")


def test_a_redelivered_message_takes_the_job_from_a_lost_worker() -> None:
    taken: list[JobEvent] = [JOB.submitted(), JOB.started(), JOB.started()]

    assert outcome(*taken).attempt == 2
    assert not last(*taken, JOB.completed(attempt=1)).applied, "what was thought dead must not complete it"
    assert last(*taken, JOB.completed(attempt=2)).applied


def test_a_running_job_is_taken_by_no_other_delivery() -> None:
    assert not last(JOB.submitted(), JOB.started(), JOB.started(SECOND)).applied
    assert not last(JOB.submitted(), JOB.started(), JOB.started(None)).applied
    assert last(JOB.submitted(), JOB.started(), JOB.started(None, redelivered=True)).applied


def test_a_job_nobody_recorded_is_made_when_it_starts() -> None:
    assert outcome(JOB.started(None)) == JobState(status=JobStatus.PROCESSING, attempt=1)


def test_a_failure_outside_an_attempt_makes_the_row_if_it_can_name_the_job() -> None:
    assert outcome(JOB.failed(None, type="t", task_id="x")).status is JobStatus.FAILED
    assert not last(JOB.failed(None)).applied
    assert not last(JOB.failed(1, type="t", task_id="x")).applied


def test_a_failure_to_deliver_speaks_of_its_own_delivery_only() -> None:
    assert not last(JOB.submitted(SECOND), JOB.failed(None, delivery=FIRST)).applied
    assert last(JOB.submitted(SECOND), JOB.failed(None, delivery=SECOND)).applied


def test_what_runs_neither_expires_nor_is_skipped() -> None:
    for event in (JOB.expired(), JOB.skipped()):
        assert last(JOB.submitted(), event).applied
        assert not last(JOB.submitted(), JOB.started(), event).applied


# -- what no sequence of events can do


@given(any_events(JOB))
def test_a_refused_event_changes_nothing_and_says_why(events: list[JobEvent]) -> None:
    for before, _, decision in run(events):
        if not decision.applied:
            assert decision.state == before
            assert decision.reason


@given(any_events(JOB))
def test_a_job_that_ended_lives_again_only_when_it_is_sent_anew(events: list[JobEvent]) -> None:
    for before, event, decision in run(events):
        if before is not None and before.status in FINAL and decision.state != before:
            assert isinstance(event, Submitted)
            assert decision.outcome == "restarted"


@given(any_events(JOB))
def test_attempts_only_grow_and_only_by_starts_but_a_suspension_is_none(events: list[JobEvent]) -> None:
    for before, event, decision in run(events):
        if before is None or decision.state is None:
            continue
        grown = decision.state.attempt - before.attempt
        is_suspended = isinstance(event, Submitted) and event.continues and event.continues.is_suspension
        expected = 1 if isinstance(event, Started) else -1 if is_suspended else 0
        assert grown == (expected if decision.applied else 0)


@given(any_events(JOB))
def test_one_attempt_at_a_time_holds_the_job(events: list[JobEvent]) -> None:
    holders: set[int] = set()
    for _, event, decision in run(events):
        if isinstance(event, Started) and decision.applied and decision.state is not None:
            assert decision.state.attempt not in holders, "two attempts under one number"
            holders.add(decision.state.attempt)
        if isinstance(event, Completed) and decision.applied:
            assert event.attempt == max(holders)
        if (
            isinstance(event, Submitted)
            and event.continues
            and event.continues.is_suspension
            and decision.applied
        ):
            holders.discard(event.continues.attempt)  # it goes on by the same number


@given(any_events(JOB))
def test_a_cancelled_job_never_turns_completed_unless_it_is_sent_anew(events: list[JobEvent]) -> None:
    is_cancelled = False
    for before, _, decision in run(events):
        if before is not None and before.status is JobStatus.CANCELLED:
            is_cancelled = True
        if decision.outcome == "restarted":
            is_cancelled = False
        assert not (is_cancelled and decision.state and decision.state.status is JobStatus.COMPLETED)


@given(any_events(JOB))
def test_what_comes_twice_in_a_row_changes_nothing_more(events: list[JobEvent]) -> None:
    for _, event, decision in run(events):
        again = decide(decision.state, event, now=NOW)
        # A start that comes again is the broker's redelivery: the next attempt.
        if not isinstance(event, Started):
            assert again.state == decision.state


LIVES: list[list[JobEvent]] = [
    [JOB.submitted(status=PENDING), JOB.accepted(), JOB.started(), JOB.progressed(), JOB.completed()],
    [JOB.submitted(), JOB.started(), JOB.submitted(SECOND, retry_of=1), JOB.attempt_failed(), JOB.started(SECOND),
     JOB.failed(2)],
    [JOB.submitted(), JOB.started(), JOB.replaced(), JOB.submitted(SECOND), JOB.started(SECOND), JOB.completed(2)],
    [JOB.submitted(), JOB.started(), JOB.requeued(), JOB.started(), JOB.progressed(2), JOB.cancelled()],
    [JOB.submitted(run_at=FAR_AHEAD), JOB.expired()],
    [JOB.submitted(status=PENDING), JOB.fell_back(FIRST, SECOND), JOB.started(SECOND), JOB.completed()],
]  # fmt: skip


@given(st.sampled_from(LIVES), st.data())
def test_late_repetitions_end_in_the_same_state(life: list[JobEvent], data: st.DataObject) -> None:
    """Repeat events of a job's life at any later time; what its publisher and the broker guarantee is left out.

    A submission is repeated only right away, by its publisher; a start that comes again is a redelivery.
    """
    repeatable = [event for event in life if not isinstance(event, Submitted | Started)]
    late: list[JobEvent] = list(life)
    for event in data.draw(st.lists(st.sampled_from(repeatable), max_size=6)):
        late.insert(data.draw(st.integers(late.index(event) + 1, len(late))), event)

    assert run(late)[-1][2].state == run(life)[-1][2].state


@given(st.permutations([JOB.accepted(), JOB.started(), JOB.progressed()]))
def test_acceptance_and_progress_come_in_any_order_with_the_start(order: list[JobEvent]) -> None:
    state = run([JOB.submitted(status=PENDING), *order, JOB.completed()])[-1][2].state

    assert state is not None
    assert state.status is JobStatus.COMPLETED


@given(any_events(JOB))
def test_every_state_is_one_that_the_design_draws(events: list[JobEvent]) -> None:
    for before, event, decision in run(events):
        if decision.state is None or before is None or decision.state.status is before.status:
            continue
        allowed = {
            *((waiting, JobStatus.PROCESSING) for waiting in WAITING),
            *((PENDING, status) for status in (JobStatus.QUEUED, JobStatus.SCHEDULED)),
            *((JobStatus.PROCESSING, status) for status in WAITING | {JobStatus.COMPLETED, JobStatus.FAILED}),
            *(
                (waiting, end)
                for waiting in WAITING
                for end in (JobStatus.FAILED, JobStatus.EXPIRED, JobStatus.SKIPPED)
            ),
            *((status, JobStatus.CANCELLED) for status in WAITING | {JobStatus.PROCESSING}),
            *((JobStatus.QUEUED, adopted) for adopted in (PENDING, JobStatus.SCHEDULED)),
            *((waiting, PENDING) for waiting in WAITING),  # delivered again
            *((end, waiting) for end in FINAL for waiting in WAITING - {JobStatus.RETRYING}),
        }
        assert (before.status, decision.state.status) in allowed, (before, event)


@pytest.mark.parametrize(
    "event",
    [JOB.accepted(), JOB.progressed(), JOB.completed(), JOB.requeued(), JOB.cancelled(), JOB.expired()],
)
def test_most_events_need_a_job(event: JobEvent) -> None:
    assert decide(None, event, now=NOW).reason == "there is no such job"
