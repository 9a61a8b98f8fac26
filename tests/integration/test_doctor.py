"""What the doctor finds: nothing in a healthy system, and each fault by its name, with what to do."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from jobbridge import Celery
from jobbridge.app.presence import Presence
from jobbridge.core.keys import Engine
from jobbridge.diagnosis.checks import check_all
from jobbridge.diagnosis.findings import Check
from jobbridge.settings import load_settings
from tests.parity.tasks import make_app

MakeApp = Callable[..., Celery]


@pytest.fixture
def make(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeApp]:
    """Give an app with these settings, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    with ExitStack() as opened:

        def make(**environment: str) -> Celery:
            app = make_app(settings=load_settings({"DATABASE_URL": database_url, **environment}))
            app.finalize()
            opened.callback(app.close)
            return app

        yield make


@pytest.fixture
def app(make: MakeApp) -> Celery:
    return make()


@pytest.fixture
def worker(app: Celery) -> Iterator[Presence]:
    """A worker as the others see it: its row and its lock."""
    presence = Presence(app, name="one@here", engine=Engine.CELERY)
    assert presence.open()
    yield presence
    presence.close()


def faults(app: Celery) -> dict[str, Check]:
    found = {check.name: check for check in check_all(app, app.settings) if not check.is_good}
    assert all(check.hint for check in found.values())
    return found


def change(app: Celery, statement: str, *values: object) -> None:
    with app.database.transaction() as connection:
        connection.execute(statement, values)


def test_a_healthy_system_has_no_fault(app: Celery, worker: Presence) -> None:
    app.enqueue("parity.add", [1, 2])

    assert faults(app) == {}


def test_a_dotenv_file_that_says_another_edition_is_named(make: MakeApp, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("EDITION=enterprise\n")

    found = faults(make(EDITION="community"))["edition"]

    assert ".env EDITION says 'enterprise'" in found.found
    assert ".env" in found.hint


def test_a_dotenv_file_that_moves_jobs_away_from_the_workers_is_named(
    make: MakeApp, worker: Presence, tmp_path: Path, temporal_server: str
) -> None:
    (tmp_path / ".env").write_text("EDITION=enterprise\n")

    found = faults(make(TEMPORAL_ADDRESS=temporal_server))["edition"]

    assert "go to temporal (.env EDITION)" in found.found
    assert "all workers that run are of celery" in found.found


def test_edition_and_runner_type_that_contradict_each_other_are_named(make: MakeApp, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("JOB_RUNNER_TYPE=celery\n")

    assert "JOB_RUNNER_TYPE says celery" in faults(make(EDITION="enterprise"))["edition"].found


def test_a_database_that_is_not_migrated_is_named(
    empty_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    app = make_app(settings=load_settings({"DATABASE_URL": empty_database_url}))

    assert "jobbridge migrate" in faults(app)["database"].hint
    app.close()


def test_a_queue_that_no_worker_serves_is_named(app: Celery, worker: Presence) -> None:
    app.enqueue("parity.add", [1, 2], queue="reports")

    found = faults(app)["workers"]

    assert "1 parity.add (celery) in the queue 'reports'" in found.found
    assert "-Q reports" in found.hint


def test_a_task_that_no_worker_knows_is_named(app: Celery, worker: Presence) -> None:
    app.send_task("no.such.task", args=(1,))

    assert "1 'no.such.task' wait in 'celery' (celery)" in faults(app)["tasks"].found


def test_a_task_that_a_worker_refused_is_named(app: Celery, worker: Presence) -> None:
    sent = app.send_task("no.such.task")
    change(
        app,
        "UPDATE jobs SET status = 'failed', error = 'No task is registered under ''no.such.task'' on this worker.', "
        "completed_at = now() WHERE task_id = %s",
        sent.id,
    )

    assert "workers refused 'no.such.task'" in faults(app)["tasks"].found


def test_a_job_whose_worker_is_gone_is_named(app: Celery, worker: Presence) -> None:
    held, lost = (app.enqueue("parity.add", [1, number]).job_id for number in range(2))
    for job_id, number in ((held, worker.number), (lost, worker.number + 1)):
        change(
            app,
            "UPDATE jobs SET status = 'processing', attempt = 1, worker = 'one@here', worker_number = %s, "
            "started_at = now(), updated_at = now() - interval '5 minutes' WHERE job_id = %s",
            number,
            job_id,
        )

    found = faults(app)["held jobs"].found

    assert str(lost) in found
    assert str(held) not in found


def test_a_job_that_no_engine_accepts_is_named(make: MakeApp) -> None:
    app = make(TEMPORAL_ADDRESS="127.0.0.1:1", JOB_RUNNER_FALLBACK_TO_CELERY="false")
    app.enqueue("parity.add", [1, 2], engine="temporal")
    change(app, "UPDATE jobs SET updated_at = now() - interval '5 minutes'")

    found = faults(app)

    assert "1 temporal pending (the oldest: 5 min ago)" in found["delivery"].found
    assert "127.0.0.1:1" in found["temporal"].found


def test_jobs_that_fell_back_are_named(make: MakeApp) -> None:
    app = make(TEMPORAL_ADDRESS="127.0.0.1:1")
    job = app.enqueue("parity.add", [1, 2], engine="temporal")

    assert str(job.job_id) in faults(app)["fallback"].found


def test_one_fault_does_not_hide_another(app: Celery) -> None:
    app.enqueue("parity.add", [1, 2], queue=f"queue-{uuid.uuid4().hex[:6]}")
    change(app, "UPDATE jobs SET updated_at = now() - interval '5 minutes'")
    app.enqueue("parity.add", [1, 2])
    change(app, "UPDATE jobs SET status = 'processing' WHERE queue = 'celery'")
    change(app, "UPDATE jobs SET updated_at = now() - interval '5 minutes'")

    assert {"workers", "held jobs"} <= set(faults(app))
