"""`jobbridge maintain` as an operator runs it: two of them, one is killed, the other is stopped."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from jobbridge.dev.process import ManagedProcess
from jobbridge.store.database import Database
from jobbridge.store.workers.services import services
from tests.acceptance.commands import run_jobbridge
from tests.forked import start_python
from tests.support import clean_environment, wait_until


def _start(folder: Path, name: str, database_url: str) -> ManagedProcess:
    process = start_python(
        ["-m", "jobbridge.cli", "maintain"], cwd=folder, name=name, log_path=folder / f"{name}.log",
        env=clean_environment({"DATABASE_URL": database_url}), grace=timedelta(seconds=15),
    )  # fmt: skip
    wait_until(lambda: "is ready" in process.log() or not process.is_running, timeout=30)
    assert process.is_running, process.log()
    return process


def test_one_leads_the_other_takes_over_and_stops_at_once(database_url: str, tmp_path: Path) -> None:
    database = Database(database_url)
    first = _start(tmp_path, "first", database_url)
    wait_until(lambda: len(services(database)) >= 4, timeout=15)
    second = _start(tmp_path, "second", database_url)
    try:
        assert {f"({first.pid})" in str(row.holder) for row in services(database)} == {True}

        first.kill()

        wait_until(
            lambda: all(f"({second.pid})" in str(row.holder) for row in services(database)),
            timeout=30,
            message="the second one leads everything",
        )
        assert [row.last_error for row in services(database) if row.last_error] == []
    finally:
        first.kill()
        second.ask_to_stop()
        code = second.wait(timedelta(seconds=10))
        database.close()
    assert code == 0, second.log()


def test_a_wrong_url_is_explained(tmp_path: Path) -> None:
    result = run_jobbridge("maintain", cwd=tmp_path, DATABASE_URL="mysql://x/y")

    assert result.returncode == 3
    assert "Hint:" in result.stderr
