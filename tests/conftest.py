"""Servers and databases that tests of every room use.

Each pytest-xdist worker has a Postgres and a Temporal server of its own, started when its first test needs them
(half a second): nothing is shared between processes that run tests at the same time.

What a run costs is mostly processor time, so: modules are compiled once, servers keep their files in memory where
there is room (a fresh database is then there in 30 ms instead of 500), and tests that share a world run in one process.
"""

from __future__ import annotations

import fcntl
import gc
import os
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import psycopg
import pytest
from hypothesis import settings
from psycopg import sql

from jobbridge.dev.postgres import PostgresServer, run_postgres
from jobbridge.dev.process import ManagedProcess
from jobbridge.dev.temporal import TemporalServer, run_temporal
from tests import other_schema
from tests.forked import fork_server
from tests.scheduling import Scheduling, take_first_what_is_long
from tests.support import (
    REPOSITORY,
    SETTING_PREFIXES,
    clean_environment,
    worker_process,
    workflow_tasks_may_fail,
)
from tests.took import Took

# How long an example takes says how busy the machine is.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")

pytest_plugins = ["pytester"]

_TEMPLATE = "template_jobbridge"
#: `TESTS_PARTITION_BY=week pytest tests/parity`: any test on tables in partitions.
PARTITIONED = "TESTS_PARTITION_BY"
_PREFIX = "jobbridge-test-"
#: A log that is kept short: it is in memory, and nobody needs it.
_SMALL = {"max_wal_size": "64MB", "min_wal_size": "32MB", **other_schema.use()}


#: The ids of all tests that there are, in a run that was asked for all of them.
EVERYTHING = pytest.StashKey[list[str]]()

#: The folders whose tests share a database, an app and a worker.
HAVE_A_WORLD = {"parity", "reports", "strangers", "temporal"}


def pytest_configure(config: pytest.Config) -> None:
    _keep_compiled_modules()
    stack = ExitStack()
    config.add_cleanup(stack.close)
    if not hasattr(config, "workerinput"):  # xdist's processes find it in the environment
        stack.enter_context(fork_server(clean_environment()))
        config.pluginmanager.register(Took(REPOSITORY))
    if config.pluginmanager.hasplugin("xdist"):
        config.pluginmanager.register(Scheduling(stack))


def pytest_itemcollected(item: pytest.Item) -> None:
    """Have the tests that share a world run in one process of xdist, else each process makes that world again."""
    if item.path.parent.name in HAVE_A_WORLD and "world" in getattr(item, "fixturenames", ()):
        parameters = (
            item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
        )
        parts = (item.path.parent.name, "world", str(parameters.get("shared_engine", "")))
        item.add_marker(pytest.mark.xdist_group("-".join(filter(None, parts))))


def _keep_compiled_modules() -> None:
    """Keep compiled modules although PYTHONDONTWRITEBYTECODE is set, as it often is in containers.

    Without them each worker that a test starts compiles Celery, SQLAlchemy and Temporal anew: more than it then runs.
    They are in a folder of their own, since that variable is there to keep source folders clean.
    """
    if sys.dont_write_bytecode:
        sys.dont_write_bytecode = False
        sys.pycache_prefix = str(REPOSITORY / "build" / "pycache")
        os.environ["PYTHONPYCACHEPREFIX"] = (
            sys.pycache_prefix
        )  # for xdist's processes, and all that tests start
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """More test processes than processors (`-n auto`): two thirds of the time they wait for what they started."""
    return min(6, 3 * (os.cpu_count() or 1))


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Iterator[object]:
    """Collect without looking for garbage, and let what was collected be: it stays, and there is much of it."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Iterator[object]:
    is_part = config.getoption("ignore") or config.getoption("ignore_glob")
    if {Path(name).resolve() for name in config.args} <= {REPOSITORY, REPOSITORY / "tests"} and not is_part:
        config.stash[EVERYTHING] = [item.nodeid for item in items]  # before -m and -k take some away
    answer = yield
    take_first_what_is_long(items)
    return answer


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run that skipped a test: the budget is zero. (Under xdist, the controller sees all reports.)"""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and (skipped := reporter.stats.get("skipped")):
        reporter.write_line(f"{len(skipped)} tests were skipped, and none may be.", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(SETTING_PREFIXES)]:
        monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _workflow_tasks_fail_where_a_test_wants_it(request: pytest.FixtureRequest) -> Iterator[None]:
    if request.node.get_closest_marker("workflow_tasks_fail") is None:
        yield
        return
    workflow_tasks_may_fail.set()
    yield
    workflow_tasks_may_fail.clear()


@pytest.fixture(autouse=True)
def _own_default_app(_no_settings_from_outside: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The app that commands take without `-A` is made once per process; a test that needs it has its own."""
    from jobbridge import bootstrap

    monkeypatch.setattr(bootstrap, "_default_app", None)
    yield
    if bootstrap._default_app is not None:
        bootstrap._default_app.close()


@pytest.fixture(autouse=True)
def _own_tasks() -> Iterator[None]:
    """Celery gives each new app the shared tasks of all former ones (celery 5.7, `_state`), whoever they were for."""
    from celery import _state

    before = set(_state._on_app_finalizers)
    yield
    _state._on_app_finalizers.intersection_update(before)


@pytest.fixture(scope="session", autouse=True)
def _temporary_files_go_with_the_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is killed with SIGKILL, as workers are here, leaves its temporary files behind."""
    tmp_path_factory.getbasetemp()  # stays where it is: what a failed test left there is to be read
    before, default = os.environ.get("TMPDIR"), tempfile.tempdir
    with _open_folder() as folder:
        os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
        yield
        tempfile.tempdir = default
        os.environ.pop("TMPDIR")
        if before is not None:
            os.environ["TMPDIR"] = before


@pytest.fixture(scope="session")
def server_folder() -> Iterator[Path]:
    """Where servers keep their data: in memory if there is room."""
    memory = _memory()
    with _open_folder(memory) as folder:
        yield folder


_MEMORY = Path("/dev/shm")  # the kernel's file system in memory (Linux)
_NEW = 60  # seconds; what is as new as that may not be locked yet
_ENOUGH = 3 << 29  # bytes; six servers use some 900 MB. Docker gives containers 64 MB unless told otherwise


def _memory() -> Path | None:
    if not (_MEMORY.is_dir() and os.access(_MEMORY, os.W_OK)):
        return None
    _clear_away_what_killed_runs_left(_MEMORY)
    state = os.statvfs(_MEMORY)
    return _MEMORY if state.f_bavail * state.f_frsize > _ENOUGH else None


def _clear_away_what_killed_runs_left(parent: Path) -> None:
    for folder in parent.glob(f"{_PREFIX}*"):
        with suppress(OSError):  # it is in use, or somebody else's, or gone
            if time.time() - folder.stat().st_mtime > _NEW:
                with _locked(folder):
                    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A fresh folder that every account may enter, as Postgres must that root starts; tmp_path is its owner's only."""
    with _open_folder() as folder:
        yield folder


@contextmanager
def _open_folder(parent: Path | None = None) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    with _locked(folder):
        folder.chmod(0o755)
        yield folder
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres(server_folder: Path) -> Iterator[PostgresServer]:
    with run_postgres(server_folder / "postgres", is_durable=False, settings=_SMALL) as server:
        other_schema.make(server)
        yield server


@pytest.fixture(scope="session")
def _administrator(postgres: PostgresServer) -> Iterator[psycopg.Connection]:
    """One session that makes and drops the databases of all tests: to open one costs as much as to drop a database."""
    with psycopg.connect(postgres.url(), autocommit=True) as connection:
        yield connection


@pytest.fixture(scope="session")
def migrated_template(postgres: PostgresServer) -> str:
    from jobbridge.store.schema.migrate import migrate
    from jobbridge.store.schema.partition import partition

    url = postgres.create_database(_TEMPLATE)
    migrate(url)
    if width := os.environ.get(PARTITIONED):
        partition(url, width)
    # The first session of a database writes a file with what all of them need of its catalogue; copies have it then.
    psycopg.connect(url).close()
    return _TEMPLATE


@pytest.fixture
def empty_database_url(postgres: PostgresServer, _administrator: psycopg.Connection) -> Iterator[str]:
    """URL of a fresh database without any table."""
    with fresh_database(_administrator, template="template1") as name:
        yield postgres.url(name)


@pytest.fixture
def database_url(
    postgres: PostgresServer, _administrator: psycopg.Connection, migrated_template: str
) -> Iterator[str]:
    """URL of a fresh, migrated database."""
    with fresh_database(_administrator, template=migrated_template) as name:
        yield postgres.url(name)


@contextmanager
def fresh_database(administrator: psycopg.Connection, *, template: str) -> Iterator[str]:
    """Give the name of a copy of the template, until the block ends."""
    name = f"test_{uuid.uuid4().hex}"
    # Copied as files, not page by page through the log: these are in memory, and are not written a second time there.
    create = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy")
    administrator.execute(create.format(sql.Identifier(name), sql.Identifier(template)))
    yield name
    administrator.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


#: Each test has a task queue of its own, and Temporal keeps each partition of a queue going, four unless told
#: otherwise: with one, a start takes a tenth less processor time, and 500 of them a fifth less memory.
_ONE_PARTITION = {f"matching.numTaskqueue{way}Partitions": 1 for way in ("Read", "Write")}


@pytest.fixture(scope="session")
def temporal(server_folder: Path) -> Iterator[TemporalServer]:
    """A Temporal server of this test process, with its CLI (`.run_cli(…)`)."""
    with run_temporal(log_path=server_folder / "temporal.log", dynamic_config=_ONE_PARTITION) as server:
        yield server


@pytest.fixture(scope="session")
def temporal_server(temporal: TemporalServer) -> str:
    """Its address."""
    return temporal.address


@pytest.fixture
def task_queue() -> str:
    """A task queue of Temporal that no other test uses: for TEMPORAL_JOB_TASK_QUEUE."""
    return f"jobs-{uuid.uuid4().hex[:12]}"


class StartWorker(Protocol):
    """Start a worker with `app` as `-A`, more command-line arguments, and settings as environment variables.

    It runs until the test ends; `.stop()`, `.kill()`, `.log()`, `.pid` are there before.
    """

    def __call__(self, app: str, *arguments: str, **settings: str | None) -> ManagedProcess: ...


@pytest.fixture
def celery_worker(tmp_path: Path) -> Iterator[StartWorker]:
    """`celery_worker("my.app", "-P", "threads", DATABASE_URL=url)`: started, and ready."""
    with ExitStack() as started:
        yield worker_starter(started, tmp_path, "celery worker")


@pytest.fixture
def temporal_worker(tmp_path: Path) -> Iterator[StartWorker]:
    """`temporal_worker("my.app", "-c", "2", DATABASE_URL=url, TEMPORAL_ADDRESS=address)`: started, and ready."""
    with ExitStack() as started:
        yield worker_starter(started, tmp_path, "temporal worker")


_COMMANDS: dict[str, Callable[[str], list[str]]] = {
    "celery worker": lambda app: ["-m", "celery", "-A", app, "worker"],
    "temporal worker": lambda app: ["-m", "jobbridge.temporal.worker", "-A", app],
}


def worker_starter(started: ExitStack, folder: Path, kind: str) -> StartWorker:
    """Give what starts workers of that kind; they stop when `started` closes, their logs are in `folder`."""

    def start(app: str, *arguments: str, **settings: Any) -> ManagedProcess:
        name = f"{kind} {uuid.uuid4().hex[:6]}"
        argv = _COMMANDS[kind](app)
        if not {"-l", "--loglevel"} & set(arguments):
            arguments = (*arguments, "-l", "INFO")
        if not {"-n", "--hostname"} & set(arguments):
            arguments = (
                *arguments,
                "-n",
                f"{uuid.uuid4().hex[:8]}@%h",
            )  # two workers of one name disturb each other
        if not {"-c", "--concurrency"} & set(arguments):
            arguments = (*arguments, "-c", "2")
        return started.enter_context(
            worker_process(
                [*argv, *arguments],
                name=name,
                log_path=folder / f"{name.replace(' ', '-')}.log",
                env=clean_environment(settings),
            )
        )

    return start


@pytest.fixture
def first_look_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have pages wait for the first check-up of the tables, however busy the machine is."""
    from jobbridge.dashboard import findings_cache

    monkeypatch.setattr(findings_cache, "PATIENCE", 60.0)
