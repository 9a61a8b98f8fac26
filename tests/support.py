"""What tests of several rooms share: waiting for a fact, and workers as processes."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, LiteralString, TypeVar

import psycopg
from psycopg.rows import dict_row

from jobbridge.dev.process import ManagedProcess
from tests.forked import start_python

REPOSITORY = Path(__file__).resolve().parents[1]

#: Settings of whoever runs the tests must not reach them.
SETTING_PREFIXES = (
    "JOB_RUNNER_",
    "JOBBRIDGE_",
    "TEMPORAL_",
    "DATABASE_",
    "EDITION",
    "CELERY_",
    "SMTP_",
    "MAIL_",
    "CALENDAR_",
    "MICROSOFT_",
    "GOOGLE_",
)

Value = TypeVar("Value")


#: What a contracting migration of a later release would tell this one.
CONTRACTED: LiteralString = """
UPDATE public.jobbridge_version SET version_num = '9999_later', revision = '9999_later', serves_since = '9999_later'
WHERE version_num ~ '^[0-9]'
"""


_LONGEST_PAUSE = 0.1  # seconds


def wait_until(
    condition: Callable[[], Value], *, timeout: float = 30.0, message: str = "", every: float = 0.02
) -> Value:
    """Call `condition` until its value is true, and give that value.

    An AssertionError of the condition counts as "not yet", and is raised when the time is over. What takes long is
    asked for less and less often, from `every` seconds on: fifty questions a second would slow down what they wait for.
    """
    began = time.monotonic()
    deadline = began + timeout
    while True:
        try:
            if value := condition():
                return value
        except AssertionError:
            if time.monotonic() > deadline:
                raise
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:g} s: {message or condition}")
        time.sleep(max(every, min(_LONGEST_PAUSE, (time.monotonic() - began) / 10)))


class Looking:
    """Somebody who reads a database again and again, in one session as long as nobody ends that.

    To open a session costs ten times what a look does. No transaction stays open, and no statement is prepared: the
    tables may change in between.
    """

    def __init__(self, database_url: str) -> None:
        self._url = database_url
        self._session: psycopg.Connection[dict[str, Any]] | None = None

    def rows(self, statement: str, values: Sequence[Any] = ()) -> list[dict[str, Any]]:
        if self._session is not None:
            with suppress(psycopg.OperationalError):  # it was ended: by the test, or with the server
                return self._session.execute(statement.encode(), values).fetchall()
            self._session.close()
        self._session = psycopg.connect(
            self._url, autocommit=True, prepare_threshold=None, row_factory=dict_row
        )
        return self._session.execute(statement.encode(), values).fetchall()

    def close(self) -> None:
        if self._session is not None:
            self._session.close()


#: JOBBRIDGE_TEST_SCHEMA=some_name: the tables of all tests are there, and not in public.
TEST_SCHEMA = os.environ.get("JOBBRIDGE_TEST_SCHEMA", "public")


def clean_environment(settings: Mapping[str, str | None] | None = None) -> dict[str, str]:
    """Give an environment for a child process: ours without anybody's settings, with these ones."""
    settings = dict(settings or {})
    kept = {name: value for name, value in os.environ.items() if not name.startswith(SETTING_PREFIXES)}
    path = [settings.pop("PYTHONPATH", None), str(REPOSITORY), os.environ.get("PYTHONPATH")]
    kept["PYTHONPATH"] = os.pathsep.join(filter(None, path))
    kept["PYTHONUNBUFFERED"] = "1"
    kept.setdefault("C_FORCE_ROOT", "1")  # only silences Celery's warning about root
    if TEST_SCHEMA != "public":
        settings.setdefault("JOBBRIDGE_SCHEMA", TEST_SCHEMA)
    return kept | {name: value for name, value in settings.items() if value is not None}


@contextmanager
def worker_process(
    argv: Sequence[str],
    *,
    name: str,
    log_path: Path,
    env: Mapping[str, str],
    ready: str | None = "ready.",
    timeout: float = 30.0,
    cwd: Path | None = None,
    python: Path | None = None,
) -> Iterator[ManagedProcess]:
    """Run a Python program (`-m …` or a path) until the block ends; enter when its log says `ready`.

    It is forked from a process that has imported what it will import: see tests/fork_server.py. It fails who has failed
    a task of a workflow with it: that is code of ours that Temporal has run again and again, unless a test wants it so
    (`@pytest.mark.workflow_tasks_fail`). Another interpreter's is a new process.
    """
    if python is None:
        process = start_python(argv, name=name, log_path=log_path, env=env, cwd=cwd)
    else:
        own = [str(python), *argv]
        process = ManagedProcess(name=name, argv=own, log_path=log_path, env=env, cwd=cwd).start()
    try:
        if ready is not None:
            wait_until(
                lambda: ready in process.log() or not process.is_running,
                timeout=timeout,
                message=f"{name} is ready; its log:\n{process.tail(40)}",
            )
            # One that was ready may have ended since: what it ran took it along.
            assert process.is_running or ready in process.log(), (
                f"{name} ended with {process.exit_code}:\n{process.tail(60)}"
            )
        yield process
    finally:
        process.kill()  # a warm shutdown takes Celery seconds; a test of it calls stop() itself
        print(f"--- log of {name} ---\n{process.log()}")
    failed = [
        line for line in process.log().splitlines() if any(sign in line for sign in _WORKFLOW_TASK_FAILED)
    ]
    assert not failed or workflow_tasks_may_fail.is_set(), f"{name} has failed tasks of workflows: {failed}"


#: What a worker of Temporal's logs then: the SDK's Python, for what the code raised, and its core, for the rest.
_WORKFLOW_TASK_FAILED = ("Failed handling activation on workflow", "Failing workflow task")
workflow_tasks_may_fail = threading.Event()


def children_of(pid: int) -> list[int]:
    """Give the processes that this one has started, and that have not ended."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[1]) == pid and fields[0] != "Z":
                found.append(int(stat.parent.name))
    return found
