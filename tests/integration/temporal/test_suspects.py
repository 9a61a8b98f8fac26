"""A job that takes its workers with it is told from those that only ran beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobbridge import Celery
from jobbridge.core.keys import job_id_for
from jobbridge.core.status import FINAL
from jobbridge.settings import load_settings
from tests.conftest import StartWorker
from tests.support import wait_until


@pytest.mark.long
@pytest.mark.timeout(300)
def test_only_the_job_that_kills_its_workers_fails(
    database_url: str, temporal_server: str, task_queue: str, temporal_worker: StartWorker, tmp_path: Path
) -> None:
    """Temporal waits eight seconds for each of the five workers."""
    environment = {
        "DATABASE_URL": database_url,
        "PARITY_FOLDER": str(tmp_path),
        "JOB_RUNNER_TYPE": "temporal",
        "TEMPORAL_ADDRESS": temporal_server,
        "TEMPORAL_JOB_TASK_QUEUE": task_queue,
    }
    app = Celery("client", settings=load_settings(environment))
    beside = app.send_task("deadly.innocent")
    guilty = app.send_task("deadly.kills_whoever_runs_it", [beside.id])

    def are_final() -> bool:
        rows = [app.jobs.find(job_id_for(each.id)) for each in (beside, guilty)]
        return all(row is not None and row.status in FINAL for row in rows)

    for _ in range(8):
        worker = temporal_worker("tests.integration.app.deadly_app", **environment)
        wait_until(lambda: not worker.is_running or are_final(), timeout=60)  # noqa: B023
        if are_final():
            break

    assert beside.get(timeout=10) == 5
    with pytest.raises(Exception, match="5 workers fell silent"):
        guilty.get(timeout=10)
    assert len((tmp_path / guilty.id / "began").read_text().splitlines()) == 5
    app.close()


def test_the_number_of_crashes_is_a_setting(
    database_url: str, temporal_server: str, task_queue: str, temporal_worker: StartWorker, tmp_path: Path
) -> None:
    """Of processes and of workers alike; here the process, which is noticed at once."""
    environment = {
        "DATABASE_URL": database_url,
        "PARITY_FOLDER": str(tmp_path),
        "JOB_RUNNER_TYPE": "temporal",
        "JOB_RUNNER_MAX_CRASHES": "2",
        "TEMPORAL_ADDRESS": temporal_server,
        "TEMPORAL_JOB_TASK_QUEUE": task_queue,
    }
    app = Celery("client", settings=load_settings(environment))
    sent = [app.send_task("deadly.exits_hard"), app.send_task("deadly.exits_hard", temporal_light=True)]
    temporal_worker("tests.integration.app.deadly_app", **environment)

    for each in sent:
        with pytest.raises(Exception, match="Worker lost, 2 times"):
            each.get(timeout=60)
        row = app.jobs.find(job_id_for(each.id))
        assert row is not None
        assert row.attempt == 2
    app.close()
