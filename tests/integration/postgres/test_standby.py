"""A standby: told from the primary, and taken up when it becomes one."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from kombu import Connection
from kombu.exceptions import OperationalError

from jobbridge import Celery
from jobbridge.broker.errors import SessionLost
from jobbridge.dev.postgres import run_postgres
from jobbridge.errors import DatabaseRefused, DatabaseUnavailable
from jobbridge.postgres.connect import connect
from jobbridge.postgres.faults import Kind, kind_of
from jobbridge.postgres.target import Target
from jobbridge.settings import load_settings
from jobbridge.store.schema.migrate import migrate
from tests.conftest import StartWorker
from tests.parity.tasks import make_app
from tests.standby import run_standby
from tests.support import wait_until


def test_a_standby_is_told_and_taken_up_when_it_is_promoted(
    open_folder: Path, celery_worker: StartWorker
) -> None:
    with run_postgres(open_folder / "first") as first:
        migrate(first.url())
        with run_standby(open_folder / "second", first) as second:
            both = first.url().replace(f":{first.port}", f":{first.port},127.0.0.1:{second.port}")
            back_to_front = first.url().replace(
                f"127.0.0.1:{first.port}", f"127.0.0.1:{second.port},127.0.0.1:{first.port}"
            )

            with pytest.raises(DatabaseUnavailable, match="standby, which can only be read") as caught:
                connect(Target.of(second.url()), "presence", must_write=True)
            assert not isinstance(caught.value, DatabaseRefused)
            with pytest.raises(SessionLost, match="standby"):
                Connection(f"jobbridge+{second.url()}").connect()
            with closing(connect(Target.of(second.url()), "jobs")) as reading:
                with pytest.raises(psycopg.Error) as refused:
                    reading.execute("DELETE FROM jobs")
                assert kind_of(refused.value, reading) is Kind.TRANSIENT
            for url in (both, back_to_front):
                with closing(connect(Target.of(url), "jobs")) as connection:
                    assert connection.info.port == first.port

            worker = celery_worker("tests.parity.app", "-P", "solo", **_settings(both, open_folder))
            app = _app(both, open_folder)
            before = [app.tasks["parity.takes"].delay(0) for _ in range(3)]
            wait_until(
                lambda: _statuses(second.url()) == {"completed": 3}, message="they ran, and were copied"
            )

            first.process.stop()
            with psycopg.connect(second.url(), autocommit=True) as admin:
                admin.execute("SELECT pg_promote()")
            after = [wait_until(lambda: _sent(app)) for _ in range(3)]
            wait_until(
                lambda: _statuses(second.url()) == {"completed": 6}, timeout=60, message="they ran there"
            )

            app.close()
            assert [_runs(open_folder, each.id) for each in (*before, *after)] == [1] * 6
            assert worker.is_running


def _settings(url: str, folder: Path) -> dict[str, str]:
    (folder / "notes").mkdir(exist_ok=True)
    return {"DATABASE_URL": url, "JOB_RUNNER_TYPE": "celery", "PARITY_FOLDER": str(folder / "notes")}


def _app(url: str, folder: Path) -> Celery:
    return make_app(settings=load_settings(_settings(url, folder)))


def _sent(app: Celery) -> Any:
    try:
        return app.tasks["parity.takes"].delay(0)
    except (OperationalError, DatabaseUnavailable):
        return None


def _statuses(url: str) -> dict[str, int]:
    with psycopg.connect(url) as connection:
        return dict(connection.execute("SELECT status, count(*) FROM jobs GROUP BY status").fetchall())


def _runs(folder: Path, task_id: str) -> int:
    return len((folder / "notes" / task_id / "takes").read_text().splitlines())
