"""A worker of the kit that does not end as it should leaves nothing behind that works on in the next test."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from typing import Any, LiteralString

import psycopg
import pytest

from jobbridge import Celery
from jobbridge.testing.engines import opened
from jobbridge.testing.servers import Servers
from tests.support import wait_until

PRESENCE: LiteralString = (
    "SELECT pid FROM pg_stat_activity WHERE application_name LIKE %s AND datname = current_database()"
)


def threads_of(name: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == name]


def test_a_worker_that_hangs_takes_its_presence_with_it(database_url: str) -> None:
    app: Any = Celery("left", set_as_current=False)
    began, may_end = threading.Event(), threading.Event()

    @app.task
    def stuck() -> None:
        began.set()
        may_end.wait()

    try:
        with Servers() as servers, ExitStack() as stack:
            stack.enter_context(opened("ce", app, servers, database_url=database_url, stops_within=0.5))
            stuck.delay()
            assert began.wait(30)
            with pytest.raises(RuntimeError, match="did not end within"):
                stack.close()

        assert threads_of("jobbridge-presence") == []
    finally:
        may_end.set()
        wait_until(lambda: threads_of("jobbridge-testing-ce") == [])


def test_a_presence_outlives_what_nobody_thought_of(
    database_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    app: Any = Celery("left", set_as_current=False)

    def told() -> bool:
        return any(record.message == "worker.presence_failed" for record in caplog.records)

    def lose_session() -> None:
        with psycopg.connect(database_url, autocommit=True) as connection:
            [(pid,)] = connection.execute(PRESENCE, ["%presence%"]).fetchall()
            connection.execute("SELECT pg_terminate_backend(%s)", [pid])

    with Servers() as servers, opened("ce", app, servers, database_url=database_url):
        settings = app.settings
        monkeypatch.setenv("JOB_RUNNER_TYPE", "nonsense")
        app._settings = None  # read anew, and refused

        lose_session()
        wait_until(told)
        app._settings = settings

        wait_until(lambda: [worker.is_alive for worker in app.workers.all()] == [True])
        assert [thread.is_alive() for thread in threads_of("jobbridge-presence")] == [True]
    assert threads_of("jobbridge-presence") == []
