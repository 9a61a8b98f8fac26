"""What the broker's tests share: connections of kombu, workers as processes, and a look into the tables."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, LiteralString

import psycopg
from kombu import Connection
from psycopg.rows import dict_row

from jobbridge.broker import register
from tests.forked import Forked, run_python
from tests.support import clean_environment, wait_until

APP = "tests.integration.broker.app"
CELERY = ["-m", "celery", "-A", APP]

register()


class Tables:
    """The broker's database, as an operator sees it.

    Args:
        url: Of the database; `broker_url` is made from it.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.broker_url = f"jobbridge+{url}"
        self.connection = psycopg.connect(url, autocommit=True, row_factory=dict_row)
        self.connection.execute(
            "CREATE TABLE notes"
            " (id bigserial, text text, event text, pid int, at timestamptz DEFAULT clock_timestamp())"
        )

    def rows(self, statement: LiteralString, *parameters: Any) -> list[dict[str, Any]]:
        return self.connection.execute(statement, parameters).fetchall()

    def number(self, statement: LiteralString, *parameters: Any) -> int:
        return int(next(iter(self.rows(statement, *parameters)[0].values())))

    @property
    def messages(self) -> list[dict[str, Any]]:
        return self.rows("SELECT * FROM jobbridge_broker.messages ORDER BY id")

    @property
    def dead_letters(self) -> list[dict[str, Any]]:
        return self.rows("SELECT * FROM jobbridge_broker.dead_letters ORDER BY id")

    @property
    def queues(self) -> set[str]:
        return {row["name"] for row in self.rows("SELECT name FROM jobbridge_broker.queues")}

    def notes(self, event: str) -> list[str]:
        return [
            row["text"] for row in self.rows("SELECT text FROM notes WHERE event = %s ORDER BY id", event)
        ]

    def end_sessions(self) -> int:
        """Terminate the backend of every session of the broker, as an administrator could."""
        return self.number(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name ~ ' broker$'"
        )

    def wait_for_notes(self, event: str, texts: set[str], *, timeout: float = 20) -> None:
        wait_until(lambda: texts <= set(self.notes(event)), timeout=timeout, message=f"{event}: {texts}")

    def wait_until_empty(self, *, timeout: float = 20) -> None:
        wait_until(lambda: not self.messages, timeout=timeout, message="all messages are done")


@contextmanager
def kombu_connection(url: str, **options: Any) -> Iterator[Connection]:
    """A connection of kombu with these transport options."""
    connection = Connection(url, transport_options=options)
    try:
        yield connection
    finally:
        connection.close()


class Worker:
    """A `celery worker` process of its own session, so that nobody else ends it, or its children."""

    def __init__(self, tables: Tables, folder: Path, name: str, pool: str, arguments: Sequence[str]) -> None:
        self.name = name
        self.log_path = folder / f"{name}.log"
        with self.log_path.open("wb") as log:
            self.process = Forked(
                [*CELERY, "worker", "-P", pool, "-n", f"{name}@test", "-l", "INFO", *arguments],
                output=log,
                env=clean_environment() | environment(tables, pool),
                takes_its_group_along=False,
            )

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def wait_until_ready(self, times: int = 1) -> Worker:
        wait_until(
            lambda: self.log().count(" ready.") >= times or self.process.poll() is not None,
            timeout=30,
            message=f"{self.name} is ready",
        )
        assert self.process.poll() is None, self.log()
        return self

    def kill(self) -> None:
        """SIGKILL the worker's main process, and leave its children alone."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(timeout=30)

    def end_all(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)  # with its children
        self.process.wait(timeout=10)


def environment(tables: Tables, pool: str = "solo") -> dict[str, str]:
    return {"JOBBRIDGE_TEST_BROKER": tables.broker_url, "JOBBRIDGE_TEST_POOL": pool}


def celery_command(tables: Tables, *arguments: str) -> str:
    """Run a command of Celery and give its output."""
    done = run_python([*CELERY, *arguments], env=clean_environment() | environment(tables))
    return done.stdout + done.stderr
