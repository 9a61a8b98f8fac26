"""One world per test: a database, an engine, an app in this process, and workers as processes of their own."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from jobbridge import Celery
from jobbridge.core.keys import Engine, job_id_for
from jobbridge.dev.postgres import PostgresServer
from jobbridge.dev.process import ManagedProcess
from jobbridge.settings import load_settings
from tests.beside import Case, Outcomes, had_beside_each_other
from tests.conftest import StartWorker, fresh_database, worker_starter
from tests.histories import assert_histories_replay
from tests.parity.tasks import make_app
from tests.support import Looking, wait_until


@dataclass
class World:
    engine: Engine
    database_url: str
    environment: dict[str, str]
    folder: Path
    app: Celery
    starters: dict[Engine, StartWorker]
    looking: Looking
    module: str = "tests.parity.app"  # what its workers serve

    @property
    def task_queue(self) -> str:
        return self.environment["TEMPORAL_JOB_TASK_QUEUE"]

    def worker(self, *arguments: str, engine: Engine | None = None) -> ManagedProcess:
        return self.starters[engine or self.engine](self.module, *arguments, **self.environment)

    def task(self, name: str) -> Any:
        return self.app.tasks[f"parity.{name}"]

    def rows(self, where: str = "true", *values: Any) -> list[dict[str, Any]]:
        return self.looking.rows(f"SELECT * FROM jobs WHERE {where} ORDER BY created_at", values)

    def row(self, task_id: str) -> dict[str, Any]:
        rows = self.rows("job_id = %s", job_id_for(task_id))
        assert len(rows) == 1, f"{len(rows)} rows of {task_id}"  # who waits for one comes again
        return rows[0]

    def details(self, task_id: str) -> list[dict[str, Any]]:
        statement = "SELECT * FROM job_details WHERE job_id = %s ORDER BY sequence"
        return self.looking.rows(statement, [job_id_for(task_id)])

    def wait_for_status(self, task_id: str, status: str, *, timeout: float = 30.0) -> dict[str, Any]:
        def reached() -> dict[str, Any]:
            row = self.row(task_id)
            assert row["status"] == status, {
                k: row[k] for k in ("type", "status", "attempt", "error", "worker")
            }
            return row

        return wait_until(reached, timeout=timeout, message=f"status {status}")

    def wait_until_no_message(self) -> None:
        """On CE: wait until the broker has nothing left."""
        counted = "SELECT count(*) AS number FROM jobbridge_broker.messages"
        wait_until(lambda: self.looking.rows(counted)[0]["number"] == 0, message="all is acknowledged")

    def lines(self, result: Any, name: str) -> list[str]:
        """Give the notes that the jobs under this one left."""
        path = self.folder / str(result) / name
        return path.read_text().splitlines() if path.exists() else []

    def release(self, result: Any, name: str = "go") -> None:
        (self.folder / str(result) / name).touch()


@pytest.fixture(params=[Engine.CELERY, Engine.TEMPORAL], ids=str)
def engine(request: pytest.FixtureRequest) -> Engine:
    return Engine(request.param)


@pytest.fixture(scope="session", params=[Engine.CELERY, Engine.TEMPORAL], ids=str)
def shared_engine(request: pytest.FixtureRequest) -> Engine:
    return Engine(request.param)


@pytest.fixture(scope="session")
def world(
    shared_engine: Engine,
    postgres: PostgresServer,
    migrated_template: str,
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> Iterator[World]:
    """A world with one worker (prefork) that many tests share: for what needs no death and no silence."""
    folder = tmp_path_factory.mktemp(f"world-{shared_engine}")
    url = postgres.create_database(f"world_{shared_engine}", template=migrated_template)
    with ExitStack() as started:
        world = make_world(shared_engine, url, folder, f"world-{uuid.uuid4().hex[:8]}", request, started)
        world.worker("-P", "prefork")
        yield world
        if shared_engine is Engine.TEMPORAL:
            assert_histories_replay(world.environment["TEMPORAL_ADDRESS"], world.task_queue)


@pytest.fixture
def own_world(
    engine: Engine, database_url: str, tmp_path: Path, task_queue: str, request: pytest.FixtureRequest
) -> Iterator[World]:
    """A world of this test alone, with no worker yet."""
    with ExitStack() as started:
        yield make_world(engine, database_url, tmp_path, task_queue, request, started)


@contextmanager
def opened_world(engine: Engine, folder: Path, request: pytest.FixtureRequest) -> Iterator[World]:
    """Open a world that is no test's own: for what a module has beside each other (tests/beside.py)."""
    with ExitStack() as started:
        administrator, template = (
            request.getfixturevalue(name) for name in ("_administrator", "migrated_template")
        )
        name = started.enter_context(fresh_database(administrator, template=template))
        url = request.getfixturevalue("postgres").url(name)
        yield make_world(engine, url, folder, f"jobs-{uuid.uuid4().hex[:12]}", request, started)


def had_in_worlds(
    request: pytest.FixtureRequest,
    engine: Engine,
    cases: Iterable[Case],
    have: Callable[[World, Case], object],
) -> Outcomes[Case]:
    """Have each case in a world of its own, with no worker yet, all of them at once."""
    folders = request.getfixturevalue("tmp_path_factory")
    with ExitStack() as opened:
        worlds = {
            case: opened.enter_context(opened_world(engine, folders.mktemp("beside"), request))
            for case in cases
        }

        def have_one(case: Case) -> None:
            worlds[case].app.set_current()  # of this thread
            try:
                have(worlds[case], case)
            except BaseException as error:
                error.add_note(f"logs of its workers: {worlds[case].folder.parent}")
                raise

        return had_beside_each_other({case: partial(have_one, case) for case in worlds})


def make_world(
    engine: Engine,
    database_url: str,
    folder: Path,
    task_queue: str,
    request: pytest.FixtureRequest,
    started: ExitStack,
    make: Callable[..., Celery] = make_app,
    **settings: str,
) -> World:
    """Make a world of a migrated database, without a worker."""
    notes = folder / "notes"
    notes.mkdir()
    temporal = request.getfixturevalue("temporal_server") if engine is Engine.TEMPORAL else "127.0.0.1:1"
    environment = {
        "DATABASE_URL": database_url,
        "JOB_RUNNER_TYPE": engine.value,
        "JOBBRIDGE_SECRET_KEY": "what-the-links-of-these-worlds-are-signed-with",
        "PARITY_FOLDER": str(notes),
        "TEMPORAL_ADDRESS": temporal,
        "TEMPORAL_JOB_TASK_QUEUE": task_queue,
        **settings,
    }
    app = make(settings=load_settings(environment))
    app.finalize()
    started.callback(app.database.close)
    started.callback(app.close)
    starters = {
        Engine.CELERY: worker_starter(started, folder, "celery worker"),
        Engine.TEMPORAL: worker_starter(started, folder, "temporal worker"),
    }
    looking = started.enter_context(closing(Looking(database_url)))
    return World(engine, database_url, environment, notes, app, starters, looking)
