"""Postgres goes away while jobs run: their ends are written when it is back."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest

from jobbridge import Celery
from jobbridge.dev.postgres import run_postgres
from jobbridge.dev.process import free_port
from jobbridge.settings import load_settings
from jobbridge.store.schema.migrate import migrate
from jobbridge.store.workers.services import services
from tests.conftest import StartWorker
from tests.parity.tasks import make_app
from tests.support import wait_until


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_jobs_that_end_while_postgres_is_away_are_completed_when_it_is_back(
    pool: str, server_folder: Path, tmp_path: Path, celery_worker: StartWorker
) -> None:
    folder, port = server_folder / f"outage-{pool}", free_port()
    with run_postgres(folder, port=port) as server:
        url = server.create_database("outage")
        migrate(url)
        environment = {"DATABASE_URL": url, "PARITY_FOLDER": str(tmp_path)}
        app = make_app(settings=load_settings(environment))
        app.finalize()
        worker = celery_worker("tests.parity.app", "-P", pool, **environment)
        late = app.tasks["parity.hold"].delay()
        early = app.tasks["parity.hold_early"].delay()
        for result in (late, early):
            wait_until(lambda: (tmp_path / result.id / "hold.pids").exists())  # noqa: B023
        wait_until(lambda: _started(app).keys() >= {"reaper", "reconciler"})
        before = _started(app)
    app.close()
    app.database.close()

    for result in (late, early):
        (tmp_path / result.id / "go").touch()
        wait_until(lambda: (tmp_path / result.id / "hold.done").exists())  # noqa: B023

    with run_postgres(folder, port=port):
        for result in (late, early):
            assert result.get(timeout=30) == 1
            row = app.jobs.find_external(result.id)
            assert row is not None
            assert (row.status, row.attempt) == ("completed", 1)
        # Its lock is held again, and it runs the services again.
        wait_until(lambda: [listed.pid for listed in app.workers.alive()] == [worker.pid])
        wait_until(
            lambda: all(_started(app)[name] != before[name] for name in ("reaper", "reconciler")),
        )
        app.close()
        app.database.close()


def _started(app: Celery) -> dict[str, datetime | None]:
    """When each service began last."""
    return {service.name: service.last_started for service in services(app.database)}
