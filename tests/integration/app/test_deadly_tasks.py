"""Tasks that take their process or their worker with them: who is blamed for it, and how it is told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from billiard.exceptions import WorkerLostError

from jobbridge import Celery
from jobbridge.core.keys import job_id_for
from jobbridge.settings import load_settings
from jobbridge.store.jobs.rows import JobRow
from tests.conftest import StartWorker
from tests.support import wait_until

_APP = "tests.integration.app.deadly_app"


@pytest.fixture
def environment(database_url: str, tmp_path: Path) -> dict[str, str]:
    return {"DATABASE_URL": database_url, "PARITY_FOLDER": str(tmp_path)}


@pytest.fixture
def app(environment: dict[str, str]) -> Iterator[Celery]:
    app = Celery("client", settings=load_settings(environment))
    yield app
    app.close()


def _row(app: Celery, result: Any) -> JobRow:
    row = app.jobs.find(job_id_for(result.id))
    assert row is not None
    return row


def test_only_the_job_that_kills_its_worker_becomes_a_dead_letter(
    app: Celery, environment: dict[str, str], celery_worker: StartWorker, tmp_path: Path
) -> None:
    guilty, beside = app.send_task("deadly.kills_its_worker"), app.send_task("deadly.bystander")
    first = celery_worker(_APP, **environment)
    wait_until(lambda: all((tmp_path / each.id / "began").exists() for each in (guilty, beside)))
    ahead = [app.send_task("deadly.quick") for _ in range(4)]
    messages = "SELECT count(*) FROM jobbridge_broker.messages WHERE leased_by IS NOT NULL"

    def leased() -> int:
        with app.database.connection() as connection:
            return int((connection.execute(messages).fetchone() or (0,))[0])

    wait_until(lambda: leased() == 6, message="all of them are taken")

    (tmp_path / guilty.id / "go").touch()
    wait_until(lambda: not first.is_running)
    for _ in range(3):
        worker = celery_worker(_APP, **environment)
        wait_until(lambda: not worker.is_running or _row(app, beside).status == "completed")  # noqa: B023
        if _row(app, beside).status == "completed":
            break

    with pytest.raises(WorkerLostError, match="the worker that ran it ended"):
        guilty.get(timeout=30)
    assert len((tmp_path / guilty.id / "began").read_text().splitlines()) == 2
    for each in (beside, *ahead):
        assert each.get(timeout=30) == 1
    assert [_row(app, each).attempt for each in (beside, *ahead)] == [2, 1, 1, 1, 1]


@pytest.mark.parametrize("pool", ["threads", "solo"])
def test_a_task_that_ends_the_worker_that_it_runs_in_is_named(
    pool: str, app: Celery, environment: dict[str, str], celery_worker: StartWorker
) -> None:
    fatal, quick = app.send_task("deadly.exits_hard"), app.send_task("deadly.quick")

    for _ in range(4):
        worker = celery_worker(_APP, "-P", pool, "-c", "1", **environment)
        wait_until(lambda: not worker.is_running or _row(app, quick).status == "completed")  # noqa: B023
        if worker.is_running:
            break

    with pytest.raises(WorkerLostError, match="the worker that ran it ended"):
        fatal.get(timeout=30)
    assert quick.get(timeout=30) == 1
    assert _row(app, quick).attempt == 1


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_what_ended_a_jobs_process_is_named(
    pool: str, app: Celery, environment: dict[str, str], celery_worker: StartWorker
) -> None:
    expected = {"deadly.exits": r"SystemExit\(7\)|exitcode 7"}
    if pool == "prefork":
        expected |= {"deadly.exits_hard": "exitcode 9", "deadly.crashes": r"signal 11 \(SIGSEGV\)"}
    sent = {name: app.send_task(name) for name in expected}

    celery_worker(_APP, "-P", pool, DEADLY_DELIVERIES="1", **environment)

    for name, result in sent.items():
        with pytest.raises(WorkerLostError, match=expected[name]):
            result.get(timeout=40)
        assert str(_row(app, result).error).startswith("WorkerLostError: ")
