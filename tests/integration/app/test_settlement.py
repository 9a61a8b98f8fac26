"""Jobs of a pool of processes are started and settled by its parent, many at a time; and what if that cannot be."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from jobbridge import Celery
from jobbridge.app.execute.carried import LATE
from jobbridge.core.events import Cancelled
from jobbridge.core.keys import job_id_for
from jobbridge.dev.postgres import PostgresServer, run_postgres
from jobbridge.dev.process import free_port
from jobbridge.settings import load_settings
from jobbridge.store.jobs.rows import JobRow
from jobbridge.store.schema.migrate import migrate
from tests.conftest import StartWorker
from tests.support import wait_until

_APP = "tests.integration.app.settlement_app"


@pytest.fixture
def environment(database_url: str, tmp_path: Path) -> dict[str, str]:
    return {"DATABASE_URL": database_url, "PARITY_FOLDER": str(tmp_path)}


@pytest.fixture
def app(environment: dict[str, str]) -> Iterator[Celery]:
    yield from _client(environment)


def _client(environment: dict[str, str]) -> Iterator[Celery]:
    app = Celery("client", settings=load_settings(environment))
    yield app
    app.close()


def _row(app: Celery, result: Any) -> JobRow:
    row = app.jobs.find(job_id_for(result.id))
    assert row is not None
    return row


def _has(app: Celery, result: Any, status: str, attempt: int = 1) -> bool:
    row = _row(app, result)
    return (row.status, row.attempt) == (status, attempt)


def _messages(url: str) -> int:
    with psycopg.connect(url) as connection:
        (number,) = connection.execute("SELECT count(*) FROM jobbridge_broker.messages").fetchone() or (0,)
    return int(number)


def _lines(folder: Path, result: Any, name: str) -> int:
    path = folder / result.id / name
    return len(path.read_text().splitlines()) if path.exists() else 0


def test_jobs_that_end_together_are_written_together(
    app: Celery, environment: dict[str, str], celery_worker: StartWorker
) -> None:
    results = [app.send_task("settled.short") for _ in range(200)]
    failing = [app.send_task("settled.fails") for _ in range(20)]

    celery_worker(_APP, **environment)

    assert [result.get(timeout=60) for result in results] == [1] * 200
    for result in failing:
        with pytest.raises(ValueError, match="It fails"):
            result.get(timeout=60)
        row = _row(app, result)
        assert row.traceback is not None
        assert "It fails" in row.traceback
    wait_until(lambda: _messages(environment["DATABASE_URL"]) == 0)
    with psycopg.connect(environment["DATABASE_URL"]) as connection:
        (commits,) = connection.execute(
            "SELECT count(DISTINCT xmin::text) FROM jobs WHERE status IN ('completed', 'failed')"
        ).fetchone() or (0,)
        steps = connection.execute(
            "SELECT status, count(*) FROM job_details GROUP BY 1 ORDER BY 1"
        ).fetchall()
    assert commits < 150, "220 ends"
    assert steps == [("completed", 200), ("failed", 20)]


def test_an_end_that_died_with_its_process_is_run_again(
    app: Celery, environment: dict[str, str], celery_worker: StartWorker, tmp_path: Path
) -> None:
    result = app.send_task("settled.dies_at_the_end")

    celery_worker(_APP, **environment)

    assert result.get(timeout=60) == 2
    assert _has(app, result, "completed", 2)
    assert _lines(tmp_path, result, "dies_at_the_end") == 2


def test_a_locked_row_holds_up_nothing_but_its_own_job(
    app: Celery, environment: dict[str, str], celery_worker: StartWorker, tmp_path: Path
) -> None:
    held = app.send_task("settled.long")
    worker = celery_worker(_APP, **environment)
    wait_until(lambda: _lines(tmp_path, held, "long.began") == 1)
    with psycopg.connect(environment["DATABASE_URL"]) as other:
        other.execute("SELECT FROM jobs WHERE job_id = %s FOR UPDATE", [job_id_for(held.id)])
        (tmp_path / held.id / "go").touch()
        wait_until(lambda: _lines(tmp_path, held, "long.done") == 1)
        others = [app.send_task("settled.short") for _ in range(50)]
        assert [result.get(timeout=60) for result in others] == [1] * 50
        assert _has(app, held, "processing")

    assert held.get(timeout=60) == 1
    assert _has(app, held, "completed")
    wait_until(lambda: _messages(environment["DATABASE_URL"]) == 0)
    assert worker.is_running


def test_an_end_that_postgres_refuses_does_not_keep_the_others_from_being_written(
    app: Celery, environment: dict[str, str], celery_worker: StartWorker
) -> None:
    results = [app.send_task("settled.short") for _ in range(40)]
    refused = results[17]
    with psycopg.connect(environment["DATABASE_URL"], autocommit=True) as connection:
        connection.execute(
            f"ALTER TABLE jobs ADD CHECK (job_id <> '{job_id_for(refused.id)}' OR status <> 'completed')".encode()
        )
    worker = celery_worker(_APP, **environment)

    others = [result for result in results if result is not refused]
    assert [result.get(timeout=60) for result in others] == [1] * 39
    wait_until(lambda: _messages(environment["DATABASE_URL"]) == 0)
    assert _has(app, refused, "processing")
    assert "job.event_not_recorded" in worker.log()


def test_while_postgres_cannot_nothing_starts_and_nothing_is_lost(
    app: Celery, environment: dict[str, str], celery_worker: StartWorker, tmp_path: Path
) -> None:
    url = environment["DATABASE_URL"]
    before = app.send_task("settled.long")
    worker = celery_worker(_APP, **environment)
    wait_until(lambda: _lines(tmp_path, before, "long.began") == 1)
    waiting = [app.send_task("settled.short") for _ in range(3)]
    assert [result.get(timeout=60) for result in waiting] == [1] * 3
    with psycopg.connect(url, autocommit=True) as connection:
        # What Postgres answers when its disk is full, for as long as the table has this trigger.
        connection.execute(
            """CREATE FUNCTION disk_full() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN RAISE EXCEPTION 'no space' USING ERRCODE = '53100'; END $$"""
        )
        connection.execute(
            "CREATE TRIGGER disk_full BEFORE UPDATE ON jobs FOR EACH ROW EXECUTE FUNCTION disk_full()"
        )
        meanwhile = [app.send_task("settled.short") for _ in range(10)]
        (tmp_path / before.id / "go").touch()
        wait_until(lambda: worker.log().count("jobs.not_settled") >= 3)
        assert [_lines(tmp_path, result, "short") for result in meanwhile] == [0] * 10
        connection.execute("DROP TRIGGER disk_full ON jobs")

    for result in (before, *meanwhile):
        assert result.get(timeout=60) == 1
        assert _has(app, result, "completed")
    wait_until(lambda: _messages(url) == 0)


def test_what_a_crash_of_postgres_forgets_is_written_with_the_end(
    server_folder: Path, tmp_path: Path, celery_worker: StartWorker
) -> None:
    """The lease and the start wait for no disk: with the longest delay of its writer, a crash forgets both."""
    folder, port = server_folder / "crash", free_port()
    with run_postgres(folder, port=port, settings={"wal_writer_delay": "10s"}) as server:
        url = server.create_database("crash")
        migrate(url)
        environment = {"DATABASE_URL": url, "PARITY_FOLDER": str(tmp_path)}
        (app,) = _client(environment)
        celery_worker(_APP, **environment)
        # An acknowledgement is on the disk, with all before it; what comes after is not.
        assert app.send_task("settled.short").get(timeout=60) == 1
        wait_until(lambda: _messages(url) == 0)
        result = app.send_task("settled.long")
        wait_until(lambda: _lines(tmp_path, result, "long.began") == 1)
        assert _has(app, result, "processing")
        _crash(server)
    app.database.close()

    with run_postgres(folder, port=port):
        with psycopg.connect(url) as connection:
            found = connection.execute(
                "SELECT status, attempt FROM jobs WHERE type = 'settled.long'"
            ).fetchone()
        assert found == ("queued", 0), "it was forgotten"
        (tmp_path / result.id / "go").touch()
        assert result.get(timeout=60) == 1
        assert _row(app, result).status == "completed"
        wait_until(lambda: _messages(url) == 0)
        assert _lines(tmp_path, result, "long.began") == 1
        app.close()
        app.database.close()


def _crash(server: PostgresServer) -> None:
    """Kill the server's processes, so that it has to recover from its log."""
    pid = int((server.process.log_path.parent / "data" / "postmaster.pid").read_text().split()[0])
    children = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=True).stdout
    for each in (pid, *map(int, children.split())):
        os.kill(each, signal.SIGKILL)


def test_what_was_taken_beyond_the_prefetch_count_goes_back_when_jobs_turn_out_long(
    app: Celery, environment: dict[str, str], celery_worker: StartWorker, tmp_path: Path
) -> None:
    short = [app.send_task("settled.short") for _ in range(300)]
    long = [app.send_task("settled.long") for _ in range(60)]
    celery_worker(_APP, "-c", "1", "--prefetch-multiplier", "1", **environment)
    assert [result.get(timeout=60) for result in short] == [1] * 300
    wait_until(lambda: sum(_lines(tmp_path, result, "long.began") for result in long) == 1)

    def leased() -> int:
        with psycopg.connect(environment["DATABASE_URL"]) as connection:
            found = connection.execute(
                "SELECT count(*) FROM jobbridge_broker.messages WHERE leased_by IS NOT NULL"
            ).fetchone()
        return int(found[0]) if found else -1

    wait_until(lambda: leased() <= 2 + _started_ahead(app, long))
    for result in long:
        (tmp_path / result.id).mkdir(exist_ok=True)
        (tmp_path / result.id / "go").touch()
    assert [result.get(timeout=60) for result in long] == [1] * 60
    assert {_row(app, result).attempt for result in long} == {1}


def _started_ahead(app: Celery, results: list[Any]) -> int:
    return sum(_row(app, result).status == "processing" for result in results) - 1


def test_what_is_cancelled_while_it_waits_for_its_process_does_not_begin(
    app: Celery, environment: dict[str, str], celery_worker: StartWorker, tmp_path: Path
) -> None:
    worker = celery_worker(_APP, "-c", "1", **environment)
    assert app.send_task("settled.short").get(timeout=30) == 1
    (child,) = _children(worker.pid)
    os.kill(child, signal.SIGSTOP)
    late = app.send_task("settled.long")
    wait_until(lambda: _has(app, late, "processing"))
    begun = time.monotonic()
    cancelled = Cancelled(key=_row(app, late).key)  # and the worker does not hear of it
    assert app.recorder.record(cancelled).applied
    wait_until(lambda: time.monotonic() - begun > LATE)
    os.kill(child, signal.SIGCONT)

    assert app.send_task("settled.short").get(timeout=30) > 0
    assert not (tmp_path / "long.began").exists()
    wait_until(lambda: _messages(environment["DATABASE_URL"]) == 0)


def test_what_was_started_ahead_waits_in_its_queue_again_when_the_worker_stops(
    app: Celery, environment: dict[str, str], celery_worker: StartWorker, tmp_path: Path
) -> None:
    """Its row must not say that it runs: nobody runs it, and no other worker would look after it for a while."""
    worker = celery_worker(_APP, "-c", "1", **environment)
    short = [app.send_task("settled.short") for _ in range(300)]  # so that the worker starts ahead
    long = [app.send_task("settled.long") for _ in range(10)]
    assert [result.get(timeout=60) for result in short] == [1] * 300
    wait_until(lambda: sum(_lines(tmp_path, result, "long.began") for result in long) == 1)
    wait_until(lambda: _started_ahead(app, long) > 0)
    ahead = [
        result
        for result in long
        if _row(app, result).status == "processing" and not _lines(tmp_path, result, "long.began")
    ]
    (running,) = [result for result in long if _lines(tmp_path, result, "long.began")]

    os.kill(worker.pid, signal.SIGTERM)

    wait_until(lambda: all(_has(app, result, "queued") for result in ahead))
    assert {_row(app, result).worker for result in ahead} == {None}
    with psycopg.connect(environment["DATABASE_URL"]) as connection:
        steps = connection.execute(
            "SELECT job_id FROM job_details WHERE step_name = 'attempt' AND status = 'processing'"
        ).fetchall()
    assert steps == [(job_id_for(running.id),)]
    (tmp_path / running.id / "go").touch()
    assert worker.wait(timedelta(seconds=30)) == 0
    assert running.get(timeout=60) == 1
    celery_worker(_APP, "-c", "1", **environment)
    for result in long:
        (tmp_path / result.id).mkdir(exist_ok=True)
        (tmp_path / result.id / "go").touch()
    assert [result.get(timeout=60) for result in long] == [1] * 10
    assert {_row(app, result).attempt for result in ahead} == {2}
    assert {_lines(tmp_path, result, "long.began") for result in long} == {1}


def _children(pid: int) -> list[int]:
    told = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(each) for each in told.split()]
