"""What events leave in the tables. Which of them apply is the machine's to say: a property test compares the two."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobbridge.core.events import JobEvent, Recorded
from jobbridge.core.keys import Engine
from jobbridge.core.machine import JobState, decide
from jobbridge.core.status import JobStatus
from jobbridge.recording import JobRecorder
from jobbridge.store.database import Database
from jobbridge.store.jobs.queries import JobDetailRow, JobRow, JobStore
from tests.job_events import FIRST, SECOND, THIRD, EventsOf, any_events, new_key
from tests.support import wait_until


class Books:
    """A database, with its recorder and what it holds."""

    def __init__(self, url: str) -> None:
        self.database = Database(url)
        self.recorder = JobRecorder(self.database)
        self.store = JobStore(self.database)

    def record(self, *events: JobEvent) -> Recorded:
        return [self.recorder.record(event) for event in events][-1]

    def row(self, job: EventsOf) -> JobRow:
        row = self.store.get(job.key)
        assert row is not None
        return row

    def steps(self, job: EventsOf) -> Sequence[JobDetailRow]:
        return self.store.details(job.key)


@pytest.fixture
def books(database_url: str) -> Iterator[Books]:
    books = Books(database_url)
    yield books
    books.database.close()


@pytest.fixture
def job() -> EventsOf:
    return EventsOf()


# -- the rows


def test_a_completed_job_has_its_times_its_result_and_one_step(books: Books, job: EventsOf) -> None:
    books.record(job.submitted(metadata={"invoice": 7}), job.started(), job.completed(result={"pages": 3}))

    row, [step] = books.row(job), books.steps(job)
    assert (row.status, row.attempt, row.result, row.progress) == (JobStatus.COMPLETED, 1, {"pages": 3}, 100)
    assert row.metadata == {"invoice": 7}
    assert row.started_at is not None
    assert row.completed_at is not None
    assert row.created_at <= row.started_at <= row.completed_at
    assert abs(row.completed_at - row.updated_at) < timedelta(seconds=1), "the clock is read for each"
    assert row.created_at.utcoffset() == timedelta(0)
    assert (step.step_name, step.status, step.attempt) == ("attempt", JobStatus.COMPLETED, 1)
    assert step.metadata["worker"] == "w1@host"
    assert step.processed_at is not None


def test_two_failures_and_a_success_leave_three_steps(books: Books, job: EventsOf) -> None:
    books.record(
        job.submitted(FIRST),
        job.started(FIRST),
        job.submitted(SECOND, retry_of=1),
        job.attempt_failed(1, "ValueError: one"),
        job.started(SECOND),
        job.submitted(THIRD, retry_of=2),
        job.attempt_failed(2, "ValueError: two"),
        job.started(THIRD),
        job.completed(3),
    )

    assert [(step.attempt, step.status, step.error) for step in books.steps(job)] == [
        (1, JobStatus.FAILED, "ValueError: one"),
        (2, JobStatus.FAILED, "ValueError: two"),
        (3, JobStatus.COMPLETED, None),
    ]
    row = books.row(job)
    assert (row.status, row.attempt, row.error, row.delivery) == (JobStatus.COMPLETED, 3, None, THIRD)


def test_a_failed_job_keeps_error_and_traceback(books: Books, job: EventsOf) -> None:
    books.record(
        job.submitted(), job.started(), job.failed(1, "ValueError: \x00 no", traceback="Traceback …")
    )

    row, [step] = books.row(job), books.steps(job)
    assert (row.status, row.error, row.traceback) == (JobStatus.FAILED, "ValueError: � no", "Traceback …")
    assert (step.status, step.error, step.traceback) == (JobStatus.FAILED, row.error, row.traceback)


def test_while_it_waits_for_its_retry_a_job_shows_the_error(books: Books, job: EventsOf) -> None:
    books.record(
        job.submitted(), job.started(), job.submitted(SECOND, retry_of=1), job.attempt_failed(1, "no")
    )

    assert (books.row(job).status, books.row(job).error) == (JobStatus.RETRYING, "no")


def test_the_error_of_an_attempt_is_kept_although_the_next_began_before_it_came(
    books: Books, job: EventsOf
) -> None:
    books.record(job.submitted(), job.started(), job.submitted(SECOND, retry_of=1), job.started(SECOND))

    late = books.record(job.attempt_failed(1, "ValueError: late"))

    assert not late.applied
    assert [(step.status, step.error) for step in books.steps(job)] == [
        (JobStatus.FAILED, "ValueError: late"),
        (JobStatus.PROCESSING, None),
    ]
    assert books.row(job).error is None


def test_the_step_of_a_worker_that_was_killed_is_closed_by_the_next_start(
    books: Books, job: EventsOf
) -> None:
    books.record(job.submitted(), job.started(), job.started(worker="w2@host"), job.completed(2))

    lost, done = books.steps(job)
    assert (lost.status, lost.error) == (JobStatus.FAILED, "The attempt was lost with its worker.")
    assert (done.status, done.metadata["worker"]) == (JobStatus.COMPLETED, "w2@host")
    assert books.row(job).worker == "w2@host"


@pytest.mark.parametrize("end", ["cancelled", "requeued", "replaced", "replaced_by"])
def test_the_running_step_ends_with_the_attempt(books: Books, job: EventsOf, end: str) -> None:
    books.record(job.submitted(), job.started())
    events: dict[str, tuple[JobEvent, JobStatus, dict[str, Any]]] = {
        "cancelled": (job.cancelled(reason="mistake", cancelled_by="ada"), JobStatus.CANCELLED, {}),
        "requeued": (job.requeued(), JobStatus.FAILED, {"requeued": True}),
        "replaced": (job.replaced(), JobStatus.COMPLETED, {"replaced": True}),
        "replaced_by": (job.replaced_by(SECOND, attempt=1), JobStatus.COMPLETED, {"replaced": True}),
    }
    event, status, said = events[end]

    books.record(event)

    [step] = books.steps(job)
    assert step.status is status
    assert step.processed_at is not None
    assert step.metadata.items() >= said.items()


def test_who_cancelled_and_why_is_kept(books: Books, job: EventsOf) -> None:
    books.record(job.submitted(), job.cancelled(reason="mistake", cancelled_by="ada"))

    row = books.row(job)
    assert (row.status, row.cancel_reason, row.cancelled_by) == (JobStatus.CANCELLED, "mistake", "ada")
    assert row.completed_at is not None


def test_progress_is_kept_within_its_bounds(books: Books, job: EventsOf) -> None:
    books.record(job.submitted(), job.started(), job.progressed(1, 130, "page 3 of 7"))

    assert (books.row(job).progress, books.row(job).progress_message) == (100, "page 3 of 7")


def test_what_is_scheduled_is_decided_by_the_database(books: Books, job: EventsOf) -> None:
    later = datetime.now(UTC) + timedelta(hours=1)

    assert books.record(job.submitted(run_at=later)).status is JobStatus.SCHEDULED
    assert books.row(job).run_at == later


def test_a_job_sent_anew_shows_nothing_of_its_former_life(books: Books, job: EventsOf) -> None:
    books.record(job.submitted(metadata={"a": 1}), job.started(), job.failed())

    assert books.record(job.submitted(SECOND, metadata={"b": 2})).outcome == "restarted"

    row = books.row(job)
    assert (row.status, row.error, row.traceback, row.started_at, row.completed_at) == (
        JobStatus.QUEUED, None, None, None, None,
    )  # fmt: skip
    assert (row.metadata, row.attempt) == ({"b": 2}, 1)


def test_a_retry_keeps_what_the_user_said_of_the_job(books: Books, job: EventsOf) -> None:
    user = uuid4()
    books.record(job.submitted(metadata={"a": 1}, user_id=user, max_attempts=3, group_id="g"), job.started())

    books.record(job.submitted(SECOND, retry_of=1, metadata={"b": 2}))

    row = books.row(job)
    assert (row.metadata, row.user_id, row.max_attempts, row.group_id) == ({"a": 1, "b": 2}, user, 3, "g")


def test_a_foreign_clients_job_is_made_when_it_starts(books: Books, job: EventsOf) -> None:
    recorded = books.record(job.started(None))

    assert (recorded.applied, recorded.attempt) == (True, 1)
    assert books.row(job).type == "invoice.send"
    assert len(books.steps(job)) == 1


def test_a_job_that_fails_before_anybody_recorded_it_is_made(books: Books, job: EventsOf) -> None:
    books.record(job.failed(None, "NotRegistered: invoice.sned", type="invoice.sned", task_id="x"))

    assert (books.row(job).status, books.row(job).task_id) == (JobStatus.FAILED, "x")


def test_results_that_json_cannot_carry_are_kept_as_bytes(books: Books, job: EventsOf) -> None:
    books.record(
        job.submitted(),
        job.started(),
        job.completed(result_payload=b"\x00\xff", result_type="application/x-pickle"),
    )

    [stored] = books.store.results_of([job.key.job_id])
    assert (stored.result, stored.result_payload, stored.result_type) == (
        None,
        b"\x00\xff",
        "application/x-pickle",
    )


def test_refusals_are_counted_by_kind(books: Books, job: EventsOf) -> None:
    books.record(job.submitted(), job.submitted(SECOND), job.completed(), job.completed())

    assert books.recorder.refused == {"Submitted": 1, "Completed": 2}


# -- Temporal's side


def test_a_job_for_temporal_keeps_its_message_until_it_ends(books: Books) -> None:
    job = EventsOf(engine=Engine.TEMPORAL)
    message = {"args": [1e22, "a\x00b", {"z": 1, "a": 2}]}
    books.record(job.submitted(status=JobStatus.PENDING, message=message))

    def stored() -> Any:
        delivery = books.store.delivery_of(job.key)
        assert delivery is not None
        return delivery.message

    assert stored() == message
    assert list(stored()["args"][2]) == ["z", "a"]
    assert isinstance(stored()["args"][0], float)
    books.record(job.accepted(external_run_id="run-1"), job.started())
    assert stored() == message
    books.record(job.completed())
    assert stored() is None
    assert books.row(job).external_run_id == "run-1"


def test_a_message_for_temporal_is_announced_to_the_relay_with_the_commit(
    books: Books, database_url: str
) -> None:
    with psycopg.connect(database_url, autocommit=True) as listener:
        listener.execute("LISTEN jobbridge_relay")
        with books.database.transaction() as connection:
            job = EventsOf(engine=Engine.TEMPORAL)
            books.recorder.record(job.submitted(message={}, status=JobStatus.PENDING), connection)
            assert list(listener.notifies(timeout=0, stop_after=1)) == []
        assert [notice.channel for notice in listener.notifies(timeout=10, stop_after=1)] == [
            "jobbridge_relay"
        ]


# -- together


def test_of_many_that_start_a_job_at_once_one_may(books: Books, job: EventsOf) -> None:
    books.record(job.submitted())
    gate = threading.Barrier(8)
    recorded: list[Recorded] = []

    def start() -> None:
        gate.wait()
        # Eight deliveries that no two workers share.
        recorded.append(books.recorder.record(job.started(None)))

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sum(one.applied for one in recorded) == 1
    assert len(books.steps(job)) == 1


def test_of_many_that_start_an_unknown_job_at_once_one_makes_it(books: Books, job: EventsOf) -> None:
    gate = threading.Barrier(8)
    recorded: list[Recorded] = []

    def start() -> None:
        gate.wait()
        recorded.append(books.recorder.record(job.started(None)))

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(one.applied for one in recorded) == [False] * 7 + [True]


def test_an_event_that_waited_for_another_transaction_sees_what_that_left(
    books: Books, job: EventsOf, database_url: str
) -> None:
    """Read committed: the guard is evaluated again on the row that the other one left."""
    books.record(job.submitted(), job.started())
    recorded: list[Recorded] = []
    with psycopg.connect(database_url, autocommit=True) as watch, books.database.transaction() as connection:
        books.recorder.record(job.cancelled(), connection)
        thread = threading.Thread(target=lambda: recorded.append(books.recorder.record(job.completed())))
        thread.start()
        waiting = (
            "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        wait_until(lambda: watch.execute(waiting).fetchall())
    thread.join(20)

    assert [(one.applied, one.status) for one in recorded] == [(False, JobStatus.CANCELLED)]


def test_tenants_with_the_same_job_id_do_not_meet(books: Books) -> None:
    ours = EventsOf(new_key(str(uuid4())))
    theirs = EventsOf(type(ours.key)(tenant=new_key(str(uuid4())).tenant, job_id=ours.key.job_id))
    books.record(ours.submitted(), theirs.submitted(), ours.started(), theirs.cancelled())

    assert (books.row(ours).status, books.row(theirs).status) == (JobStatus.PROCESSING, JobStatus.CANCELLED)
    assert books.steps(theirs) == []


@pytest.mark.parametrize("is_alone", [False, True])
def test_an_acceptance_does_not_wait_for_the_disk_where_nothing_else_is_written(
    books: Books, job: EventsOf, is_alone: bool
) -> None:
    books.record(job.submitted(status=JobStatus.PENDING))

    with books.database.transaction() as connection:
        connection.execute("SET LOCAL synchronous_commit = 'on'")
        assert books.recorder.record(job.accepted(is_alone=is_alone), connection).applied
        waits = connection.execute("SELECT current_setting('synchronous_commit')").fetchone()

    assert waits == ("off" if is_alone else "on",)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_the_tables_say_what_the_machine_says(books: Books, data: st.DataObject) -> None:
    job = EventsOf()
    state: JobState | None = None
    for event in data.draw(any_events(job)):
        decision = decide(state, event, now=datetime.now(UTC))
        recorded = books.recorder.record(event)
        row = books.store.get(job.key)
        assert (recorded.applied, recorded.outcome) == (decision.applied, decision.outcome), event
        assert _state(row) == decision.state, event
        assert (recorded.status, recorded.attempt) == ((row.status, row.attempt) if row else (None, 0))
        assert recorded.applied or recorded.reason
        if row is not None:
            _is_consistent(row, books.steps(job))
        state = decision.state


def _state(row: JobRow | None) -> JobState | None:
    if row is None:
        return None
    return JobState(status=row.status, attempt=row.attempt, delivery=row.delivery, run_at=row.run_at)


def _is_consistent(row: JobRow, steps: Sequence[JobDetailRow]) -> None:
    running = [step for step in steps if step.status is JobStatus.PROCESSING]
    if row.status is JobStatus.PROCESSING:
        is_held = row.worker is not None  # else it waits for its children
        assert [step.attempt for step in running] == ([row.attempt] if is_held else [])
    assert (row.completed_at is not None) == row.status.is_final
    assert len({step.attempt for step in steps}) == len(steps), "one step per attempt"
    if row.status.is_final:
        assert not running
