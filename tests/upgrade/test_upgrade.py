"""The release before, this one, and a pretended next one, on one database, with jobs in flight, on both engines."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest

from jobbridge import __version__
from jobbridge.core.keys import Engine, job_id_for
from jobbridge.store.schema import migrate as migrations
from tests.support import REPOSITORY, wait_until
from tests.upgrade.releases import Release, next_release, release_before

#: Other releases cannot be forked as this one can: a dozen new processes each.
pytestmark = pytest.mark.long

BEFORE, NEXT = "0.1.0", "the next one"


class Installation:
    """One database, and the releases that serve it."""

    def __init__(self, engine: Engine, database_url: str, settings: dict[str, str], folder: Path) -> None:
        self.engine = engine
        self.database_url = database_url
        self.settings = {**settings, "DATABASE_URL": database_url, "JOB_RUNNER_TYPE": engine.value}
        self.notes = folder / "notes"
        self.notes.mkdir()

    def release(self, version: str, folder: Path) -> Release:
        return Release(version=version, folder=folder, settings=self.settings, notes=self.notes)

    def row(self, task_id: str) -> tuple[Any, ...]:
        """Give status, attempt, and whether it says which worker has it."""
        with psycopg.connect(self.database_url) as connection:
            rows = connection.execute(
                "SELECT status, attempt, worker_number IS NOT NULL FROM jobs WHERE job_id = %s",
                [job_id_for(task_id)],
            ).fetchall()
        [row] = rows
        return row

    def runs(self) -> list[tuple[str, str, str]]:
        """Give who sent each job that has run, by which release and in which process it ran."""
        lines = [line for path in self.notes.glob("*-*-*-*-*") for line in path.read_text().splitlines()]
        return [(sender, runner, pid) for sender, runner, pid in (line.split() for line in lines)]

    def sent(self) -> list[str]:
        return [line for path in self.notes.glob("sent-*") for line in path.read_text().splitlines()]

    def wait_for_runs(self, number: int, which: Callable[[str, str], bool]) -> None:
        """Wait until so many more jobs have run, counted by who sent them and who ran them."""

        def ran() -> int:
            return sum(which(sender, runner) for sender, runner, _ in self.runs())

        before = ran()
        wait_until(lambda: ran() >= before + number, timeout=60, message=f"{self.runs()}")


@pytest.fixture(params=[Engine.CELERY, Engine.TEMPORAL], ids=str)
def installation(
    empty_database_url: str, tmp_path: Path, task_queue: str, request: pytest.FixtureRequest
) -> Installation:
    engine = Engine(request.param)
    address = request.getfixturevalue("temporal_server") if engine is Engine.TEMPORAL else "127.0.0.1:1"
    settings = {"TEMPORAL_ADDRESS": address, "TEMPORAL_JOB_TASK_QUEUE": task_queue}
    return Installation(engine, empty_database_url, settings, tmp_path)


def test_the_release_before_and_this_one_serve_one_database(
    installation: Installation,
) -> None:
    old = installation.release(BEFORE, release_before())
    new = installation.release(__version__, REPOSITORY)
    engine = installation.engine
    assert old.run("-c", "import jobbridge; print(jobbridge.__version__)").stdout.strip() == BEFORE
    assert old.migrate().returncode == 0

    with ExitStack() as until_the_end:
        with old.worker(engine, "--max-tasks-per-child", "1") as old_worker:
            held = old.send("hold")
            senders = [until_the_end.enter_context(old.sender())]
            installation.wait_for_runs(2, lambda sender, runner: True)

            migrated = new.migrate()
            assert "and goes on" in migrated.stdout, migrated.stderr
            assert migrations.current(installation.database_url) == migrations.heads()
            assert old.migrate().returncode == 0, "a container of the release before that starts again"
            installation.wait_for_runs(5, lambda sender, runner: True)
            senders.append(until_the_end.enter_context(new.sender()))
            installation.wait_for_runs(2, lambda sender, runner: (sender, runner) == (__version__, BEFORE))

            until_the_end.enter_context(new.worker(engine))
            installation.wait_for_runs(2, lambda sender, runner: runner == __version__)
            installation.wait_for_runs(2, lambda sender, runner: runner == BEFORE)
            (installation.notes / "go").touch()
            old_worker.stop()
        installation.wait_for_runs(2, lambda sender, runner: (sender, runner) == (BEFORE, __version__))
        (installation.notes / "stop").touch()
        wait_until(lambda: not any(sender.is_running for sender in senders))
        assert [sender.exit_code for sender in senders] == [0, 0]
        jobs = [held, *installation.sent()]
        wait_until(lambda: {installation.row(job)[0] for job in jobs} == {"completed"}, timeout=60)

    # On a busy machine Temporal may lose sight of a worker; then an attempt more is what it should be.
    assert {(attempt > 0, is_known) for _, attempt, is_known in map(installation.row, jobs)} == {(True, True)}
    assert len(installation.runs()) == len(jobs), "each once"
    processes = [pid for _, runner, pid in installation.runs() if runner == BEFORE]
    assert len(set(processes)) == len(processes), "each in a child that was forked for it"


def test_a_contracting_migration_ends_the_service_of_this_release_and_nothing_runs_unrecorded(
    installation: Installation,
) -> None:
    new = installation.release(__version__, REPOSITORY)
    later = installation.release(NEXT, next_release())
    engine = installation.engine
    assert new.migrate().returncode == 0

    with new.worker(engine) as worker:
        held = new.send("hold")
        wait_until(lambda: installation.row(held)[0] == "processing")
        refused = later.migrate()
        assert refused.returncode != 0
        assert f"({__version__})" in refused.stderr
        assert "--force" in refused.stderr
        assert migrations.current(installation.database_url) == migrations.heads()

        forced = later.migrate("--force")
        assert "takes nothing more" in forced.stdout, forced.stderr
        wait_until(lambda: "takes no more jobs" in worker.log())
        done = new.run("-c", "import upgrade_app; upgrade_app.note.delay('x')")
        assert "SchemaTooNew" in done.stderr
        waiting = later.send("note")
        (installation.notes / "go").touch()
        wait_until(lambda: installation.row(held) == ("completed", 1, True))
        doctor = later.run("-m", "jobbridge.cli", "doctor", "-A", "upgrade_app", "--json")
        found = {check["name"]: check["found"] for check in json.loads(doctor.stdout)["checks"]}
        assert f"(release {__version__})" in found["releases"]
        assert installation.row(waiting) == ("queued", 0, False)

        late = new.run("-m", "celery", "-A", "upgrade_app", "worker", "-P", "solo")
        assert (late.returncode, "serves releases that know 9001_contract" in late.stderr) == (3, True)
        with later.worker(engine):
            wait_until(lambda: installation.row(waiting) == ("completed", 1, True), timeout=60)
    assert len(installation.runs()) == 2, "each once"
