"""A task that is replaced by a chain, whose last task has its id."""

from __future__ import annotations

from pathlib import Path

from jobbridge.settings import load_settings
from tests.conftest import StartWorker
from tests.parity.tasks import make_app


def test_the_chain_may_be_faster_than_the_end_of_the_attempt_that_it_replaces(
    database_url: str, tmp_path: Path, celery_worker: StartWorker
) -> None:
    environment = {"DATABASE_URL": database_url, "PARITY_FOLDER": str(tmp_path)}
    app = make_app(settings=load_settings(environment))
    app.finalize()
    celery_worker("tests.parity.app", "-P", "threads", "-c", "3", **environment)

    result = app.tasks["parity.replaced_and_waits"].delay()

    assert result.get(timeout=30) == "last"
    row = app.jobs.find_external(result.id)
    assert row is not None
    assert (row.status, row.attempt) == ("completed", 2)
    app.close()
