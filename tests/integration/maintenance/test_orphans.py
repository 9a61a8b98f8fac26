"""What the reaper and the reconciler of the broker do with jobs that nothing brings on, and what they leave alone."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from celery.exceptions import WorkerLostError

from jobbridge import Celery
from jobbridge.app.worker.presence import Presence
from jobbridge.core.events import Started
from jobbridge.core.keys import SYSTEM_TENANT, Engine, JobKey, job_id_for
from jobbridge.core.status import JobStatus
from jobbridge.maintenance.reaper import Reaper
from jobbridge.maintenance.reconciler import BrokerReconciler
from jobbridge.maintenance.sightings import Sightings
from jobbridge.postgres.presence import draw_number
from jobbridge.settings import load_settings
from jobbridge.store.jobs.rows import JobRow
from jobbridge.store.workers.workers import WorkerStore
from tests.dead_worker import dead_worker
from tests.parity.tasks import make_app

AT_ONCE = timedelta()
NEVER_STOPPED = threading.Event()


@pytest.fixture
def app(database_url: str) -> Iterator[Celery]:
    app = make_app(settings=load_settings({"DATABASE_URL": database_url}))
    app.finalize()
    app.workers = WorkerStore(app.database, grace=AT_ONCE)  # the test's Postgres has just begun
    yield app
    app.close()


@pytest.fixture
def reaper(app: Celery) -> Reaper:
    return Reaper(app, Sightings(apart=AT_ONCE))


@pytest.fixture
def reconciler(app: Celery) -> BrokerReconciler:
    return BrokerReconciler(app, quiet=AT_ONCE, rest=AT_ONCE, sightings=Sightings(apart=AT_ONCE))


@pytest.fixture
def dead(app: Celery) -> int:
    """The number of a worker that is on the list, and gone."""
    return dead_worker(app)


def _send(app: Celery, name: str, *args: Any, **options: Any) -> JobKey:
    result = app.tasks[f"parity.{name}"].apply_async(args, **options)
    return JobKey(tenant=SYSTEM_TENANT, job_id=job_id_for(result.id))


def _begin(app: Celery, key: JobKey, worker: int | None) -> None:
    row = _row(app, key)
    started = Started(
        key=key,
        task_id=row.task_id,
        type=row.type,
        engine=Engine.CELERY,
        delivery=row.delivery,
        queue="celery",
        worker="w@here",
        worker_number=worker,
    )
    assert app.recorder.record(started).applied


def _row(app: Celery, key: JobKey) -> JobRow:
    row = app.jobs.get(key)
    assert row is not None
    return row


def _run(app: Celery, statement: str, **params: Any) -> None:
    with app.database.connection() as own:
        own.execute(statement, params)


def _drop_messages(app: Celery) -> None:
    _run(app, "DELETE FROM jobbridge_broker.messages")


def _look_twice(reconciler: BrokerReconciler) -> list[dict[str, int]]:
    return [dict(reconciler.run(NEVER_STOPPED)) for _ in range(2)]


# -- the reaper


def test_a_job_that_was_acknowledged_early_fails_with_its_worker(
    app: Celery, reaper: Reaper, dead: int
) -> None:
    key = _send(app, "hold_early")
    _begin(app, key, dead)
    _drop_messages(app)

    assert reaper.run(NEVER_STOPPED) == {"buried": 1, "failed": 1}

    row = _row(app, key)
    assert row.status is JobStatus.FAILED
    assert "acks_late=False" in str(row.error)
    assert f"jobbridge jobs retry {key.job_id}" in str(row.error)
    with pytest.raises(WorkerLostError, match="w@here was lost"):
        app.AsyncResult(row.task_id).get(timeout=5)
    assert app.workers.all() == []
    assert reaper.run(NEVER_STOPPED) == {}


def test_a_job_whose_message_is_there_comes_back_by_itself(app: Celery, reaper: Reaper, dead: int) -> None:
    key = _send(app, "hold")
    _begin(app, key, dead)

    assert reaper.run(NEVER_STOPPED) == {"buried": 1}

    assert _row(app, key).status is JobStatus.PROCESSING


def test_more_such_jobs_than_a_portion_are_looked_at_once(
    app: Celery, reaper: Reaper, dead: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobbridge.maintenance.reaper.BATCH", 2)
    comes_back = [_send(app, "hold") for _ in range(4)]
    for key in comes_back:
        _begin(app, key, dead)
    lost = _send(app, "hold_early")
    _begin(app, lost, dead)
    _run(app, "DELETE FROM jobbridge_broker.messages WHERE correlation_id = %(id)s", id=str(lost.job_id))

    assert reaper.run(NEVER_STOPPED) == {"buried": 1, "failed": 1}

    assert {_row(app, key).status for key in comes_back} == {JobStatus.PROCESSING}
    assert _row(app, lost).status is JobStatus.FAILED


def test_the_message_of_an_earlier_delivery_does_not_count(app: Celery, reaper: Reaper, dead: int) -> None:
    key = _send(app, "hold_early")
    _begin(app, key, dead)
    _run(app, "UPDATE jobs SET delivery = %(other)s", other=uuid.uuid4())

    assert reaper.run(NEVER_STOPPED)["failed"] == 1


def test_the_jobs_of_a_living_worker_are_left_alone(app: Celery, reaper: Reaper) -> None:
    presence = Presence(app, name="alive@here", engine=Engine.CELERY)
    assert presence.open()
    key = _send(app, "hold_early")
    _begin(app, key, presence.number)
    _drop_messages(app)
    _run(app, "UPDATE jobs SET updated_at = now() - interval '3 days'")  # slow, and that is all

    assert reaper.run(NEVER_STOPPED) == {}

    assert _row(app, key).status is JobStatus.PROCESSING
    presence.close()


def test_a_worker_of_the_release_before_must_be_seen_dead_twice(app: Celery, dead: int) -> None:
    """It has no row by which others judge, and a number below those of ours."""
    _run(app, "UPDATE job_workers SET number = 4711")
    _run(app, "DELETE FROM jobbridge_broker.consumers")
    reaper = Reaper(app, Sightings(apart=timedelta(hours=1)))

    assert reaper.run(NEVER_STOPPED) == {}
    assert reaper.run(NEVER_STOPPED) == {}

    assert [worker.number for worker in app.workers.all()] == [4711]


def test_a_worker_whose_process_cannot_be_seen_must_be_seen_dead_twice(
    app: Celery, reaper: Reaper, dead: int
) -> None:
    _run(app, "UPDATE jobbridge_broker.consumers SET boot_id = 'another'")

    assert reaper.run(NEVER_STOPPED) == {}
    assert reaper.run(NEVER_STOPPED) == {"buried": 1}

    assert app.workers.all() == []


def test_the_jobs_of_another_broker_are_left_alone(app: Celery, reaper: Reaper, dead: int) -> None:
    key = _send(app, "hold_early")
    _begin(app, key, dead)
    _drop_messages(app)
    _run(app, "UPDATE jobs SET broker = 'redis'")

    reaper.run(NEVER_STOPPED)

    assert _row(app, key).status is JobStatus.PROCESSING


# -- the reconciler


def test_a_purged_queue_leaves_no_job_waiting_for_ever(app: Celery, reconciler: BrokerReconciler) -> None:
    keys = [_send(app, "add", 1, 1), _send(app, "add", 1, 1, countdown=3600)]
    kept = _send(app, "add", 1, 1)
    _run(
        app,
        "DELETE FROM jobbridge_broker.messages WHERE correlation_id <> %(kept)s",
        kept=str(kept.job_id),
    )

    assert _look_twice(reconciler) == [{}, {"failed": 2}]

    for key in keys:
        row = _row(app, key)
        assert row.status is JobStatus.FAILED
        assert "the queue was purged" in str(row.error)
    assert _row(app, kept).status is JobStatus.QUEUED


def test_a_dead_letter_whose_finder_died_fails_its_job(app: Celery, reconciler: BrokerReconciler) -> None:
    key = _send(app, "add", 1, 1)
    _run(
        app,
        """
        WITH dead AS (DELETE FROM jobbridge_broker.messages RETURNING *)
        INSERT INTO jobbridge_broker.dead_letters
            (id, queue, reason, priority, deliveries, correlation_id, published_at, headers, properties, body)
        SELECT id, queue, 'too_many_deliveries', priority, deliveries, correlation_id, published_at, headers,
            properties, body
        FROM dead
        """,
    )

    _look_twice(reconciler)

    assert _row(app, key).error == "Dead letter: too_many_deliveries"


def test_an_expired_message_whose_finder_died_expires_its_job(
    app: Celery, reconciler: BrokerReconciler
) -> None:
    key = _send(app, "add", 1, 1, expires=datetime.now(UTC) + timedelta(hours=1))
    _drop_messages(app)
    _run(app, "UPDATE jobs SET expires_at = now() - interval '1 second'")

    assert _look_twice(reconciler)[1] == {"expired": 1}

    assert _row(app, key).status is JobStatus.EXPIRED


def test_a_running_job_without_a_message_is_ended_only_if_its_worker_is_gone(
    app: Celery, reconciler: BrokerReconciler
) -> None:
    presence = Presence(app, name="alive@here", engine=Engine.CELERY)
    assert presence.open()
    alive, lost, unknown = (_send(app, "hold_early") for _ in range(3))
    _begin(app, alive, presence.number)
    _begin(app, lost, draw_number())  # long gone, and off the list
    _begin(app, unknown, None)
    _drop_messages(app)

    assert _look_twice(reconciler)[1] == {"failed": 1}

    assert _row(app, alive).status is JobStatus.PROCESSING
    assert _row(app, unknown).status is JobStatus.PROCESSING
    assert _row(app, lost).status is JobStatus.FAILED
    presence.close()


def test_a_job_that_goes_on_between_the_two_looks_is_left_alone(
    app: Celery, reconciler: BrokerReconciler
) -> None:
    key = _send(app, "add", 1, 1)
    _drop_messages(app)

    reconciler.run(NEVER_STOPPED)
    _begin(app, key, None)  # a worker had taken it

    assert reconciler.run(NEVER_STOPPED) == {}
    assert _row(app, key).status is JobStatus.PROCESSING


def test_a_job_that_waits_for_its_chain_or_its_children_is_left_alone(
    app: Celery, reconciler: BrokerReconciler
) -> None:
    key = _send(app, "add", 1, 1)
    _drop_messages(app)
    _run(app, "UPDATE jobs SET delivery = NULL")

    _look_twice(reconciler)

    assert _row(app, key).status is JobStatus.QUEUED


def test_another_broker_is_unknown_and_its_jobs_are_left_alone(
    app: Celery, reconciler: BrokerReconciler
) -> None:
    key = _send(app, "add", 1, 1)
    _drop_messages(app)
    _run(app, "UPDATE jobs SET broker = 'amqp'")

    _look_twice(reconciler)

    assert _row(app, key).status is JobStatus.QUEUED


def test_a_pass_goes_over_more_jobs_than_a_portion_has(
    app: Celery, reconciler: BrokerReconciler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobbridge.maintenance.reconciler.BATCH", 2)
    keys = [_send(app, "add", 1, number) for number in range(5)]
    _drop_messages(app)

    assert _look_twice(reconciler)[1] == {"failed": 5}

    assert {_row(app, key).status for key in keys} == {JobStatus.FAILED}


def test_the_guard_holds_when_the_row_changes_at_the_last_moment(app: Celery) -> None:
    """Between the look and the write the job begins: what was to be failed had only waited."""
    from jobbridge.maintenance.orphans import settle
    from jobbridge.store.jobs.open_jobs import BEGINNING, open_jobs

    key = _send(app, "hold_early")
    (job,) = open_jobs(app.database, Engine.CELERY, older_than=AT_ONCE, after=BEGINNING, limit=10)
    _begin(app, key, None)

    assert settle(app, job, None, now=datetime.now(UTC)) is None
    assert settle(app, replace(job, attempt=1), None, now=datetime.now(UTC)) is None
    assert _row(app, key).status is JobStatus.PROCESSING
