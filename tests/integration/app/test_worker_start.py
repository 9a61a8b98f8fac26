"""A worker that cannot use its tables does not start, and one that is told to stop does so at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from jobbridge.app.worker import steps
from jobbridge.app.worker.steps import tell_engine
from jobbridge.settings import load_settings
from tests.conftest import StartWorker
from tests.forked import run_python
from tests.support import CONTRACTED, REPOSITORY, clean_environment, wait_until


@pytest.mark.parametrize(
    ("planted", "says", "hint"),
    [
        ("no database", "No database is configured", "DATABASE_URL"),
        ("not migrated", "has no tables of jobbridge", "jobbridge migrate"),
        ("too new", "is at 9999_later", "Upgrade this installation"),
    ],
)
def test_a_worker_says_what_to_do_and_ends(
    planted: str, says: str, hint: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    settings = {"PARITY_FOLDER": str(tmp_path)}
    if planted == "not migrated":
        settings["DATABASE_URL"] = request.getfixturevalue("empty_database_url")
    if planted == "too new":
        settings["DATABASE_URL"] = url = request.getfixturevalue("database_url")
        with psycopg.connect(url) as connection:
            connection.execute(CONTRACTED)

    ended = run_python(
        ["-m", "celery", "-A", "tests.parity.app", "worker", "-P", "solo"],
        cwd=REPOSITORY,
        env=clean_environment(settings),
    )

    assert ended.returncode == 3
    assert says in ended.stderr
    assert hint in ended.stderr
    assert "Traceback" not in ended.stderr


def test_an_idle_worker_hears_the_signal_while_it_waits(
    database_url: str, tmp_path: Path, celery_worker: StartWorker
) -> None:
    worker = celery_worker(
        "tests.parity.app", "-P", "threads", DATABASE_URL=database_url, PARITY_FOLDER=str(tmp_path)
    )

    worker.stop()

    wait_until(lambda: not worker.is_running)
    assert "Warm shutdown" in worker.log()
    assert "Jobs that name no engine go to celery, says default." in worker.log()


def test_a_worker_says_what_a_dotenv_file_makes_of_its_jobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("EDITION=enterprise\nJOB_RUNNER_TYPE=temporal\n")

    # On its own logger: a worker that ran in this process before has set up those above it.
    monkeypatch.setattr(steps.logger, "handlers", [caplog.handler])
    monkeypatch.setattr(steps.logger, "propagate", False)
    monkeypatch.setattr(steps.logger, "disabled", False)
    with caplog.at_level("INFO", logger=steps.logger.name):
        tell_engine(load_settings({"EDITION": "community"}))

    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "Jobs that name no engine go to temporal, says .env JOB_RUNNER_TYPE."),
        ("WARNING", ".env EDITION says otherwise; environment EDITION wins."),
    ]


def test_eventlet_is_refused_with_a_sentence(database_url: str, tmp_path: Path) -> None:
    """What eventlet's `monkey_patch` leaves of `select`; the package is not needed for that."""
    program = tmp_path / "patched.py"
    program.write_text(
        "import select, sys, types\n"
        "sys.modules['eventlet'] = types.ModuleType('eventlet')\n"
        "del select.poll, select.epoll\n"
        "from jobbridge import Celery\n"
        "from jobbridge.errors import JobBridgeError\n"
        "app = Celery('patched')\n"
        "try:\n"
        "    app.send_task('add')\n"
        "except JobBridgeError as error:\n"
        "    sys.exit(f'{error} {error.hint}')\n"
    )
    ended = subprocess.run(
        [sys.executable, str(program)],
        capture_output=True,
        text=True,
        env=clean_environment({"DATABASE_URL": database_url}),
        check=False,
    )

    assert "eventlet has patched this process" in ended.stderr
    assert "-P gevent" in ended.stderr
    assert "Traceback" not in ended.stderr
