"""Why a job does not run: its row, its message or workflow, and the workers say it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jobbridge import Celery
from jobbridge.app.worker.presence import Presence
from jobbridge.core.keys import Engine, TenantId
from jobbridge.diagnosis.explain import Reason, explain
from jobbridge.settings import load_settings
from jobbridge.store.tenants.tenants import TenantStore
from tests.parity.tasks import make_app


@pytest.fixture
def app(database_url: str) -> Iterator[Celery]:
    settings = load_settings({"DATABASE_URL": database_url, "TEMPORAL_ADDRESS": "127.0.0.1:1"})
    app = make_app(settings=settings)
    app.finalize()
    yield app
    app.close()


@pytest.fixture
def worker(app: Celery) -> Iterator[Presence]:
    """A worker as the others see it: its row and its lock."""
    presence = Presence(app, name="one@here", engine=Engine.CELERY)
    assert presence.open()
    yield presence
    presence.close()


def reasons(app: Celery, job: Any) -> dict[str, Reason]:
    row = app.jobs.find(job.job_id)
    assert row is not None
    return {reason.code: reason for reason in explain(app, row).reasons}


def change(app: Celery, statement: str, *values: object) -> None:
    with app.database.transaction() as connection:
        connection.execute(statement, values)


def test_a_job_in_line_tells_how_many_are_before_it(app: Celery, worker: Presence) -> None:
    jobs = [app.enqueue("parity.add", [1, number]) for number in range(3)]
    urgent = app.enqueue("parity.add", [1, 9], priority=9)

    assert reasons(app, jobs[2])["in_line"].what == "3 messages are before it in the queue 'celery'."
    assert "next in the queue" in reasons(app, urgent)["in_line"].what
    assert set(reasons(app, urgent)) == {"in_line"}


def test_a_job_that_is_not_due_says_when_it_is(app: Celery, worker: Presence) -> None:
    at = datetime.now(UTC) + timedelta(hours=3, minutes=1)

    told = reasons(app, app.enqueue("parity.add", [1, 2], run_at=at, expires=timedelta(days=1)))

    assert "in 3 h" in told["not_due"].what
    assert set(told) == {"not_due", "expires"}


def test_no_worker_or_none_that_knows_the_task(app: Celery, worker: Presence) -> None:
    elsewhere = reasons(app, app.enqueue("parity.add", [1, 2], queue="reports"))["no_worker"]
    sent = app.send_task("no.such.task")
    unknown = reasons(app, sent.job.key)["unknown_task"]

    assert "serves the queue 'reports'. Running: one@here (celery): celery." in elsewhere.what
    assert "-Q reports" in elsewhere.hint
    assert "knows 'no.such.task': one@here" in unknown.what


def test_a_message_that_a_worker_prefetched_names_its_process(app: Celery, worker: Presence) -> None:
    job = app.enqueue("parity.add", [1, 2])
    change(
        app,
        "WITH consumer AS (INSERT INTO jobbridge_broker.consumers (host, pid) VALUES ('here', 4711) RETURNING id) "
        "UPDATE jobbridge_broker.messages SET leased_by = consumer.id FROM consumer",
    )

    assert "process 4711 on here has its message" in reasons(app, job)["prefetched"].what


def test_a_message_that_is_gone_or_buried(app: Celery, worker: Presence) -> None:
    job = app.enqueue("parity.add", [1, 2])
    change(
        app,
        "INSERT INTO jobbridge_broker.dead_letters SELECT id, queue, 'too_many_deliveries', now(), priority, "
        "expires_at, deliveries, correlation_id, published_at, content_type, content_encoding, headers, properties, "
        "body "
        "FROM jobbridge_broker.messages",
    )
    change(app, "DELETE FROM jobbridge_broker.messages")
    assert "too_many_deliveries" in reasons(app, job)["buried"].what

    change(app, "DELETE FROM jobbridge_broker.dead_letters")
    assert "not in the broker" in reasons(app, job)["no_message"].what


@pytest.mark.parametrize(("is_alive", "code"), [(True, "running"), (False, "worker_lost")])
def test_a_running_job_names_its_worker_and_whether_that_lives(
    app: Celery, worker: Presence, is_alive: bool, code: str
) -> None:
    job = app.enqueue("parity.add", [1, 2])
    change(
        app,
        "UPDATE jobs SET status = 'processing', attempt = 2, worker = 'one@here', worker_number = %s, progress = 40, "
        "started_at = now() - interval '2 minutes'",
        worker.number if is_alive else worker.number + 1,
    )

    assert "Attempt 2 runs on one@here for 2 min, at 40 %" in reasons(app, job)[code].what


@pytest.mark.parametrize(
    ("status", "said", "to_do"),
    [
        ("completed", "It completed", ""),
        ("failed", "out of paper", "jobs retry"),
        ("cancelled", "by Ada", ""),
        ("expired", "expired before it ran", "jobs retry"),
        ("skipped", "skipped", "tenants resume"),
    ],
)
def test_a_job_that_ended_says_how(app: Celery, status: str, said: str, to_do: str) -> None:
    job = app.enqueue("parity.add", [1, 2])
    change(
        app,
        "UPDATE jobs SET status = %s, completed_at = now(), error = 'out of paper\nand ink', cancelled_by = 'Ada'",
        status,
    )

    told = reasons(app, job)["ended"]

    assert said in told.what
    assert "ink" not in told.what
    assert to_do in told.hint


def test_a_job_that_fell_back_and_one_that_temporal_has_not_accepted(app: Celery) -> None:
    fallen = app.enqueue("parity.add", [1, 2], engine="temporal")
    told = reasons(app, fallen)
    assert "fell back to the broker" in told["fell_back"].what
    assert "no_worker" in told

    change(app, "UPDATE jobs SET runner_type = 'temporal', status = 'pending'")
    assert "temporal has not accepted it" in reasons(app, fallen)["pending"].what

    change(app, "UPDATE jobs SET status = 'queued'")
    assert "cannot be asked" in reasons(app, fallen)["unreachable"].what


def test_a_job_of_a_suspended_tenant_will_be_skipped(app: Celery, worker: Presence) -> None:
    TenantStore(app.database).suspend(TenantId("acme"), reason="unpaid")

    told = reasons(app, app.enqueue("parity.add", [1, 2], tenant="acme"))["suspended"]

    assert "'acme' is suspended: unpaid" in told.what
    assert "tenants resume acme" in told.hint
