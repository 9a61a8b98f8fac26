"""The proof that a worker is here is lost, in each way that it can be: what it runs, it alone runs, and once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest

from jobbridge import Celery
from jobbridge.core.keys import job_id_for
from jobbridge.core.status import JobStatus
from jobbridge.dev.postgres import PostgresServer, run_postgres
from jobbridge.dev.process import ManagedProcess, free_port
from jobbridge.postgres.presence import ask
from jobbridge.settings import load_settings
from jobbridge.store.schema.migrate import migrate
from tests.beside import MIGRATING, Outcomes, chosen, had_beside_each_other
from tests.conftest import StartWorker, worker_starter
from tests.parity.tasks import make_app
from tests.proxy import Proxy
from tests.standby import run_standby
from tests.support import wait_until

#: The longest time between two sweeps of one worker, and a bit. Seconds.
SWEEP = 4.0


def _app(url: str) -> Celery:
    app = make_app(settings=load_settings({"DATABASE_URL": url}))
    app.finalize()
    return app


@pytest.fixture
def app(database_url: str) -> Iterator[Celery]:
    app = _app(database_url)
    yield app
    app.close()


class Held:
    """A job that runs until the test lets it go, on the only worker that there is."""

    def __init__(self, app: Celery, folder: Path, *, task: str = "parity.hold") -> None:
        self.result: Any = app.tasks[task].delay()
        self._folder = folder / self.result.id
        wait_until(lambda: self.runs == 1, message="it runs")

    @property
    def runs(self) -> int:
        notes = self._folder / "hold.pids"
        return len(notes.read_text().splitlines()) if notes.exists() else 0

    def let_go(self) -> None:
        (self._folder / "go").touch()

    def ends_after_one_run(self, app: Celery) -> None:
        assert self.result.get(timeout=60) == 1
        row = app.jobs.find(job_id_for(self.result.id))
        assert row is not None
        assert (row.status, row.attempt, self.runs) == (JobStatus.COMPLETED, 1, 1)


def _let_others_sweep(url: str, *, times: int = 3) -> None:
    """Wait until somebody has looked for the dead so often: enough for two looks of whoever does."""
    with psycopg.connect(url, autocommit=True) as connection:
        seen: set[object] = set()

        def looks() -> bool:
            seen.add(connection.execute("SELECT swept_at FROM jobbridge_broker.sweeps").fetchone())
            return len(seen) > times

        wait_until(looks, timeout=60, message="others sweep")


def _number_of(app: Celery, worker: ManagedProcess) -> int:
    return next(row.number for row in app.workers.all() if row.pid == worker.pid)


def _is_free(url: str, number: int) -> bool:
    with psycopg.connect(url, autocommit=True) as connection:
        return bool(ask(connection, [number]))


# -- killed


@pytest.mark.parametrize("when", ["beside it", "afterwards"])
def test_a_killed_workers_job_runs_elsewhere_within_five_seconds(
    when: str, database_url: str, app: Celery, celery_worker: StartWorker, tmp_path: Path
) -> None:
    environment = {"DATABASE_URL": database_url, "PARITY_FOLDER": str(tmp_path)}
    worker = celery_worker("tests.parity.app", "-c", "1", **environment)
    job = Held(app, tmp_path)
    if when == "beside it":
        celery_worker("tests.parity.app", "-c", "1", **environment)

    worker.kill()
    if when == "afterwards":
        celery_worker("tests.parity.app", "-c", "1", **environment)  # it is ready now

    wait_until(lambda: job.runs == 2, timeout=5)
    job.let_go()
    assert job.result.get(timeout=20) == 1


# -- cut off alone


@pytest.mark.parametrize("how", ["closed", "frozen"])
@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_worker_that_is_cut_off_alone_keeps_what_it_runs(
    how: str,
    pool: str,
    postgres: PostgresServer,
    database_url: str,
    app: Celery,
    celery_worker: StartWorker,
    tmp_path: Path,
) -> None:
    with Proxy(postgres.port) as proxy:
        beyond = database_url.replace(f":{postgres.port}/", f":{proxy.address.rpartition(':')[2]}/")
        worker = celery_worker(
            "tests.parity.app", "-P", pool, "-c", "1", DATABASE_URL=beyond, PARITY_FOLDER=str(tmp_path)
        )
        job = Held(app, tmp_path)
        celery_worker(
            "tests.parity.app", "-P", pool, "-c", "1", DATABASE_URL=database_url, PARITY_FOLDER=str(tmp_path)
        )
        number = _number_of(app, worker)
        if how == "closed":
            proxy.cut()
            wait_until(lambda: _is_free(database_url, number), timeout=20, message="its proof is lost")
        else:
            proxy.freeze()

        _let_others_sweep(database_url)

        assert job.runs == 1
        job.let_go()
        proxy.mend() if how == "closed" else proxy.thaw()
        job.ends_after_one_run(app)
        wait_until(lambda: not _is_free(database_url, number), timeout=30, message="it proves itself again")
        assert worker.is_running


# -- the server goes away


@pytest.fixture(scope="module")
def away(
    request: pytest.FixtureRequest, server_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Outcomes[tuple[Any, ...]]:
    """Have a Postgres away for each time, beside each other."""
    return had_beside_each_other(
        {
            case: partial(_bear, *case, server_folder, tmp_path_factory.mktemp("away"))
            for case in chosen(request, "seconds")
        }
    )


@pytest.mark.xdist_group("postgres-away")
@pytest.mark.parametrize(
    "seconds",
    [0, 5, pytest.param(40, marks=pytest.mark.long), pytest.param(130, marks=pytest.mark.long)],
)
def test_what_runs_while_postgres_is_away_runs_once(seconds: int, away: Outcomes[tuple[Any, ...]]) -> None:
    away.of((seconds,))


def _bear(seconds: float, server_folder: Path, notes: Path) -> None:
    folder, port = server_folder / f"away-{seconds}", free_port()
    with ExitStack() as started:
        celery_worker = worker_starter(started, notes, "celery worker")
        with run_postgres(folder, port=port) as server:
            url = server.create_database("away")
            with MIGRATING:
                migrate(url)
            app = _app(url)
            environment = {"DATABASE_URL": url, "PARITY_FOLDER": str(notes)}
            workers = [celery_worker("tests.parity.app", "-c", "1", **environment)]
            job = Held(app, notes)
            workers.append(celery_worker("tests.parity.app", "-c", "1", **environment))
        app.close()
        app.database.close()

        threading.Event().wait(seconds)  # what is to be borne

        with run_postgres(folder, port=port):
            _let_others_sweep(url)
            job.let_go()
            job.ends_after_one_run(app)
            assert {row.pid for row in app.workers.alive()} == {worker.pid for worker in workers}
            app.close()
            app.database.close()


def test_what_runs_while_a_standby_is_promoted_runs_once(
    open_folder: Path, tmp_path: Path, celery_worker: StartWorker
) -> None:
    with ExitStack() as stack:
        running = stack.enter_context(ExitStack())
        primary = running.enter_context(run_postgres(open_folder / "primary"))
        url = primary.create_database("moved")
        migrate(url)
        standby = stack.enter_context(run_standby(open_folder / "standby", primary))
        proxy = stack.enter_context(Proxy(primary.port))
        beyond = url.replace(f":{primary.port}/", f":{proxy.address.rpartition(':')[2]}/")
        app = _app(beyond)
        stack.callback(app.database.close)
        stack.callback(app.close)
        workers = [
            celery_worker("tests.parity.app", "-c", "1", DATABASE_URL=beyond, PARITY_FOLDER=str(tmp_path))
        ]
        job = Held(app, tmp_path)
        workers.append(
            celery_worker("tests.parity.app", "-c", "1", DATABASE_URL=beyond, PARITY_FOLDER=str(tmp_path))
        )
        there = url.replace(f":{primary.port}/", f":{standby.port}/")
        _wait_until_there(url, there)

        running.close()
        with psycopg.connect(standby.url(), autocommit=True) as connection:
            connection.execute("SELECT pg_promote()")
        proxy.point_to(standby.port)

        _let_others_sweep(there)
        job.let_go()
        job.ends_after_one_run(app)
        wait_until(lambda: {row.pid for row in app.workers.alive()} == {worker.pid for worker in workers})


def _wait_until_there(url: str, standby: str) -> None:
    """Wait until the standby has what the primary has."""
    with psycopg.connect(url, autocommit=True) as first, psycopg.connect(standby, autocommit=True) as second:
        row = first.execute("SELECT pg_current_wal_lsn()::text").fetchone()
        assert row is not None

        def has_come() -> bool:
            return second.execute("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", row).fetchone() == (True,)

        wait_until(has_come)


# -- what it leaves


def test_what_a_lost_session_had_claimed_and_not_begun_comes_back_and_is_not_counted(
    database_url: str, app: Celery, celery_worker: StartWorker, tmp_path: Path
) -> None:
    worker = celery_worker(
        "tests.parity.app", "-c", "1", DATABASE_URL=database_url, PARITY_FOLDER=str(tmp_path)
    )
    job = Held(app, tmp_path)
    others = [app.tasks["parity.add"].delay(1, number) for number in range(3)]
    number = _number_of(app, worker)
    with psycopg.connect(database_url, autocommit=True) as connection:
        wait_until(
            lambda: _messages(connection, leased_by=number) > 1, message="it has taken more than it runs"
        )

        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid() AND query LIKE '%jobbridge_broker%'"
        )

        job.let_go()
        assert [result.get(timeout=60) for result in others] == [1, 2, 3]
        job.ends_after_one_run(app)
        wait_until(lambda: _messages(connection) == 0, message="nothing is left")
        dead = connection.execute("SELECT count(*) FROM jobbridge_broker.dead_letters").fetchone()
        assert dead == (0,)
    assert worker.is_running


def _messages(connection: psycopg.Connection[Any], *, leased_by: int | None = None) -> int:
    row = connection.execute(
        "SELECT count(*) FROM jobbridge_broker.messages WHERE leased_by = %(number)s OR %(number)s::bigint IS NULL",
        {"number": leased_by},
    ).fetchone()
    assert row is not None
    return int(row[0])
