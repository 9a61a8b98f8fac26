"""What the tables are asked: jobs, deliveries, steps, keys."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from uuid import uuid4

import psycopg
import pytest

from jobbridge.core.keys import Engine, TenantId
from jobbridge.core.status import JobStatus
from jobbridge.errors import DatabaseUnavailable, JobCancelled
from jobbridge.recording import JobRecorder
from jobbridge.store.database import Database
from jobbridge.store.jobs.keys import KeyStore
from jobbridge.store.jobs.queries import JobFilter, JobStore
from jobbridge.store.jobs.steps import StepStore
from tests.job_events import FAR_AHEAD, FIRST, SECOND, EventsOf, new_key

NOW = timedelta(0)


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = Database(database_url)
    yield database
    database.close()


@pytest.fixture
def recorder(database: Database) -> JobRecorder:
    return JobRecorder(database)


@pytest.fixture
def store(database: Database) -> JobStore:
    return JobStore(database)


# -- jobs


def test_a_job_is_found_by_its_key_its_id_and_its_engines_id(store: JobStore, recorder: JobRecorder) -> None:
    job = EventsOf(new_key("acme"))
    recorder.record(job.submitted(external_id="workflow-7"))

    row = store.get(job.key)
    assert row is not None
    assert row == store.find(job.key.job_id) == store.find_external("workflow-7")
    assert (row.tenant, row.runner_type) == ("acme", Engine.CELERY)


def test_an_unknown_job_is_none_and_another_tenants_too(store: JobStore, recorder: JobRecorder) -> None:
    job = EventsOf(new_key("acme"))
    recorder.record(job.submitted())

    assert store.find(uuid4()) is None
    assert store.find_external("nothing") is None
    assert store.get(type(job.key)(tenant=TenantId("other"), job_id=job.key.job_id)) is None


def test_pages_lead_through_all_jobs_newest_first(store: JobStore, recorder: JobRecorder) -> None:
    jobs = [EventsOf() for _ in range(7)]
    for job in jobs:
        recorder.record(job.submitted())

    seen, before = [], None
    while True:
        page = store.page(before=before, limit=3)
        seen += [row.job_id for row in page.jobs]
        before = page.next
        if before is None:
            break

    assert seen == [job.key.job_id for job in reversed(jobs)]


def test_a_page_that_is_just_full_is_the_last(store: JobStore, recorder: JobRecorder) -> None:
    recorder.record(EventsOf().submitted())

    assert store.page(limit=1).next is None


def test_jobs_are_filtered(store: JobStore, recorder: JobRecorder) -> None:
    temporal = EventsOf(new_key("acme"), engine=Engine.TEMPORAL)
    celery = EventsOf(new_key("zeta"))
    recorder.record(temporal.submitted(type="invoice_zip", queue="slow"))
    recorder.record(celery.submitted(run_at=FAR_AHEAD))

    for where in (
        JobFilter(tenant=TenantId("acme")),
        JobFilter(engine=Engine.TEMPORAL),
        JobFilter(type="invoice_zip"),
        JobFilter(queue="slow"),
        JobFilter(statuses=[JobStatus.QUEUED, JobStatus.FAILED]),
        JobFilter(tenant=TenantId("acme"), engine=Engine.TEMPORAL, statuses=[JobStatus.QUEUED]),
    ):
        assert [row.job_id for row in store.page(where).jobs] == [temporal.key.job_id], where
    assert store.page(JobFilter(statuses=[])).jobs == []


def test_the_originals_rows_of_pgboss_are_celerys(
    store: JobStore, recorder: JobRecorder, database_url: str
) -> None:
    recorder.record(EventsOf().submitted())
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("UPDATE jobs SET runner_type = 'pgboss'")

    assert [row.runner_type for row in store.page(JobFilter(engine=Engine.CELERY)).jobs] == [Engine.CELERY]
    assert store.count_by_status() == {(Engine.CELERY, JobStatus.QUEUED): 1}


def test_a_forgotten_result_leaves_the_job(store: JobStore, recorder: JobRecorder) -> None:
    job = EventsOf()
    for event in (job.submitted(), job.started(), job.completed(result=[1, 2])):
        recorder.record(event)

    store.forget_result(job.key.job_id)

    [stored] = store.results_of([job.key.job_id, uuid4()])
    assert (stored.status, stored.result, stored.task_id) == (JobStatus.COMPLETED, None, str(job.key.job_id))


# -- deliveries


def test_what_no_engine_has_accepted_is_taken_once_and_again_after_a_while(
    store: JobStore, recorder: JobRecorder
) -> None:
    job = EventsOf(engine=Engine.TEMPORAL)
    recorder.record(job.submitted(status=JobStatus.PENDING, message={"id": 1}))

    [taken] = store.take_undelivered(older_than=NOW)
    assert (taken.key, taken.delivery, taken.message) == (job.key, FIRST, {"id": 1})
    assert store.take_undelivered(older_than=NOW) == []
    assert len(store.take_undelivered(older_than=NOW, again_after=NOW)) == 1


def test_young_deliveries_are_left_to_their_sender(store: JobStore, recorder: JobRecorder) -> None:
    recorder.record(EventsOf(engine=Engine.TEMPORAL).submitted(status=JobStatus.PENDING, message={}))

    assert store.take_undelivered(older_than=timedelta(hours=1)) == []


def test_what_an_engine_has_or_nobody_needs_is_not_taken(store: JobStore, recorder: JobRecorder) -> None:
    accepted, started, cancelled, celery = (EventsOf(engine=Engine.TEMPORAL) for _ in range(4))
    for job in (accepted, started, cancelled):
        recorder.record(job.submitted(status=JobStatus.PENDING, message={}))
    recorder.record(celery.submitted())
    recorder.record(accepted.accepted())
    recorder.record(started.started())
    recorder.record(cancelled.cancelled())

    assert store.take_undelivered(older_than=NOW) == []


def test_a_retrys_message_waits_for_delivery_as_the_first_did(store: JobStore, recorder: JobRecorder) -> None:
    job = EventsOf(engine=Engine.TEMPORAL)
    recorder.record(job.submitted(status=JobStatus.PENDING, message={"n": 1}))
    assert store.take_undelivered(older_than=NOW)
    recorder.record(job.started())
    recorder.record(job.submitted(SECOND, retry_of=1, message={"n": 2}))

    [taken] = store.take_undelivered(older_than=NOW)
    assert (taken.status, taken.delivery, taken.message) == (JobStatus.RETRYING, SECOND, {"n": 2})


def test_taking_does_not_hold_up_the_start(store: JobStore, recorder: JobRecorder) -> None:
    job = EventsOf(engine=Engine.TEMPORAL)
    recorder.record(job.submitted(status=JobStatus.PENDING, message={}))
    store.take_undelivered(older_than=NOW)

    assert recorder.record(job.started()).applied


def test_a_row_that_its_sender_still_holds_is_passed_over(
    store: JobStore, recorder: JobRecorder, database: Database
) -> None:
    held, free = EventsOf(engine=Engine.TEMPORAL), EventsOf(engine=Engine.TEMPORAL)
    for job in (held, free):
        recorder.record(job.submitted(status=JobStatus.PENDING, message={}))

    with database.transaction() as connection:
        recorder.record(held.accepted(), connection)
        assert [taken.key for taken in store.take_undelivered(older_than=NOW)] == [free.key]


# -- steps


def test_a_finished_step_with_a_key_is_not_done_again(database: Database, store: JobStore) -> None:
    steps, job = StepStore(database), new_key()
    with steps.step(job, 1, "render", key="invoice-7") as step:
        assert not step.is_done
        step.result = {"pages": 2}

    with steps.step(job, 2, "render", key="invoice-7") as again:
        assert (again.is_done, again.result) == (True, {"pages": 2})

    [row] = store.details(job)
    assert (row.step_name, row.step_key, row.status, row.attempt) == (
        "render",
        "invoice-7",
        JobStatus.COMPLETED,
        1,
    )


@pytest.mark.parametrize("other", ["key", "name", "job", "tenant"])
def test_only_the_same_step_of_the_same_job_is_done(database: Database, other: str) -> None:
    steps, job = StepStore(database), new_key("acme")
    with steps.step(job, 1, "render", key="invoice-7"):
        pass

    name = "send" if other == "name" else "render"
    key = "invoice-8" if other == "key" else "invoice-7"
    asked = {"job": new_key("acme"), "tenant": type(job)(tenant=TenantId("zeta"), job_id=job.job_id)}.get(
        other, job
    )
    with steps.step(asked, 1, name, key=key) as step:
        assert not step.is_done


@pytest.mark.parametrize(
    ("error", "status"),
    [(ValueError("no \x00 page"), JobStatus.FAILED), (JobCancelled("x"), JobStatus.CANCELLED)],
)
def test_a_step_that_failed_is_done_again(
    database: Database, store: JobStore, error: Exception, status: JobStatus
) -> None:
    steps, job = StepStore(database), new_key()
    with pytest.raises(type(error)), steps.step(job, 1, "render", key="invoice-7"):
        raise error
    with steps.step(job, 2, "render", key="invoice-7") as step:
        assert not step.is_done

    assert [row.status for row in store.details(job)] == [status, JobStatus.COMPLETED]
    assert type(error).__name__ in (store.details(job)[0].error or "")


def test_a_step_without_a_key_is_always_done(database: Database, store: JobStore) -> None:
    steps, job = StepStore(database), new_key()
    for attempt in (1, 2):
        with steps.step(job, attempt, "collect") as step:
            assert not step.is_done

    assert len(store.details(job)) == 2


def test_a_step_runs_although_it_cannot_be_written(empty_database_url: str) -> None:
    database = Database(empty_database_url)  # without tables

    with StepStore(database).step(new_key(), 1, "collect") as step:
        step.result = "done"

    database.close()


def test_a_step_that_may_have_been_done_does_not_run_on_a_guess() -> None:
    database = Database("postgresql://127.0.0.1:1/nowhere")

    with pytest.raises(DatabaseUnavailable), StepStore(database).step(new_key(), 1, "send", key="invoice-7"):
        raise AssertionError("must not run")


# -- keys


def test_a_value_is_stored_replaced_and_deleted(database: Database) -> None:
    keys = KeyStore(database)
    keys.set("group-1", b"\x00first")
    keys.set("group-1", b"second")

    assert keys.get("group-1") == b"second"
    assert keys.mget(["group-1", "group-2"]) == {"group-1": b"second"}
    assert keys.delete("group-1")
    assert not keys.delete("group-1")
    assert keys.get("group-1") is None


def test_a_value_whose_time_is_over_is_gone(database: Database) -> None:
    keys = KeyStore(database)
    keys.set("past", b"x", ttl=-1)
    keys.set("future", b"x", ttl=timedelta(hours=1))

    assert (keys.get("past"), keys.get("future")) == (None, b"x")
    assert keys.delete_expired() == 1
    assert keys.delete_expired() == 0


def test_a_counter_counts_until_its_time_is_over(database: Database) -> None:
    keys = KeyStore(database)
    assert [keys.incr("chord-1"), keys.incr("chord-1"), keys.incr("chord-1", by=3)] == [1, 2, 5]

    keys.expire("chord-1", ttl=3600)
    assert keys.incr("chord-1") == 6
    keys.expire("chord-1", ttl=-1)
    assert keys.incr("chord-1") == 1
