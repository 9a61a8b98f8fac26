"""What a worker that has nothing to do asks of Postgres: a number that only shrinks."""

from __future__ import annotations

import re
import time
from collections import Counter
from pathlib import Path

import psycopg
import pytest

from jobbridge.dev.postgres import PostgresServer, run_postgres
from jobbridge.store.schema.migrate import migrate
from tests.conftest import StartWorker
from tests.support import wait_until

#: Statements, of `celery worker -c 2` alone: with all services. 131 of them were there before somebody counted.
A_MINUTE = 60

#: As the development server logs: who, of which database, and the first line of the statement.
_LOGGED = re.compile(
    r"^\S+ \S+ \S+ \[\d+\] (.*?)@idle LOG:  (?:execute [^:]*|statement): \s*(.*)$", re.MULTILINE
)


@pytest.mark.long
def test_an_idle_worker_asks_for_less_than_one_statement_a_second(
    server_folder: Path, tmp_path: Path, celery_worker: StartWorker
) -> None:
    with run_postgres(server_folder / "idle", is_durable=False) as server:
        url = server.create_database("idle")
        migrate(url)
        worker = celery_worker("tests.parity.app", "-c", "2", DATABASE_URL=url, PARITY_FOLDER=str(tmp_path))
        settled, counted = time.monotonic() + 15, time.monotonic() + 75
        wait_until(lambda: time.monotonic() > settled)  # what a start costs is another matter

        _log_statements(server, "all")
        before = len(server.process.log())
        wait_until(lambda: time.monotonic() > counted, timeout=70)
        asked = Counter(_LOGGED.findall(server.process.log()[before:]))
        _log_statements(server, "none")

        assert worker.is_running
        assert 10 < asked.total() < A_MINUTE, "\n".join(
            f"{n} {who}: {what}" for (who, what), n in asked.most_common()
        )


def _log_statements(server: PostgresServer, which: str) -> None:
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(f"ALTER SYSTEM SET log_statement = '{which}'")  # type: ignore[call-overload,unused-ignore]
        connection.execute("SELECT pg_reload_conf()")
