"""Who schedules what nobody can run is told at once, and pays no round trip for it."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from jobbridge import Celery, CeleryJobRunner
from jobbridge.app.publish import consumers
from jobbridge.app.worker.presence import Presence
from jobbridge.core.keys import Engine
from jobbridge.settings import load_settings
from tests.parity.tasks import make_app


@pytest.fixture
def app(database_url: str) -> Iterator[Celery]:
    app = make_app(settings=load_settings({"DATABASE_URL": database_url}))
    app.finalize()
    yield app
    app.close()


@pytest.fixture
def presence(app: Celery) -> Iterator[Presence]:
    presence = Presence(app, name="w@here", engine=Engine.CELERY)
    assert presence.open()
    yield presence
    presence.close()


def _warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.__dict__["reason"] for record in caplog.records if record.message == "job.nobody_runs_it"]


def test_a_job_that_nobody_can_run_is_sent_with_a_warning(
    app: Celery, caplog: pytest.LogCaptureFixture
) -> None:
    runner = CeleryJobRunner(app)

    with caplog.at_level(logging.WARNING):
        scheduled = [runner.schedule_job("parity.add", {"args": [1, 1]}) for _ in range(3)]

    assert "no worker of celery was running" in str(scheduled[0].warning)
    assert len(_warnings(caplog)) == 1, "one for all three"
    row = app.jobs.find(scheduled[0].job_id)
    assert row is not None
    assert row.status == "queued"


def test_a_job_that_a_worker_can_run_is_sent_without(app: Celery, presence: Presence) -> None:
    assert CeleryJobRunner(app).schedule_job("parity.add", {"args": [1, 1]}).warning is None


def test_the_warning_says_what_is_missing(app: Celery, presence: Presence) -> None:
    servers = app.servers
    elsewhere = servers.warn_if_none("parity.add", queue="reports", engine=Engine.CELERY)
    unknown = servers.warn_if_none("reports.make", queue="celery", engine=Engine.CELERY)
    other_engine = servers.warn_if_none("parity.add", queue="celery", engine=Engine.TEMPORAL)

    assert "serves the queue 'reports'" in str(elsewhere)
    assert "none of the 1 workers of celery knows the task" in str(unknown)
    assert "no worker of temporal" in str(other_engine)


def test_the_list_of_workers_is_read_twice_a_minute_at_most(
    app: Celery, presence: Presence, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert app.servers.warn_if_none("parity.add", queue="celery", engine=Engine.CELERY) is None
    presence.close()

    assert app.servers.warn_if_none("parity.add", queue="celery", engine=Engine.CELERY) is None
    monkeypatch.setattr(consumers, "FRESH", 0.0)
    assert app.servers.warn_if_none("parity.add", queue="celery", engine=Engine.CELERY) is not None
