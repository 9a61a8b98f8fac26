"""`track=False`: a task, or one call of it, does without the row. Message, retries and result are as ever."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from celery import chord, group

from jobbridge import Celery
from jobbridge.errors import UnsupportedOption
from jobbridge.settings import load_settings
from tests.conftest import StartWorker
from tests.integration.app import settlement_app  # noqa: F401  # its tasks are shared by all apps
from tests.support import wait_until


@pytest.fixture
def environment(database_url: str, tmp_path: Path) -> dict[str, str]:
    return {"DATABASE_URL": database_url, "PARITY_FOLDER": str(tmp_path)}


@pytest.fixture
def app(environment: dict[str, str]) -> Iterator[Celery]:
    app = Celery("client", settings=load_settings(environment))
    app.finalize()
    yield app
    app.close()


def _count(environment: dict[str, str], table: str) -> int:
    with psycopg.connect(environment["DATABASE_URL"]) as connection:
        found = connection.execute(f"SELECT count(*) FROM {table}".encode()).fetchone()
    return int(found[0]) if found else -1


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_untracked_tasks_run_and_leave_no_row(
    app: Celery, environment: dict[str, str], celery_worker: StartWorker, pool: str
) -> None:
    celery_worker("tests.integration.app.settlement_app", "-P", pool, **environment)
    untracked, retries, short = (
        app.tasks[f"settled.{name}"] for name in ("untracked", "untracked_retries", "short")
    )

    assert untracked.delay(1).get(timeout=30) == 2
    assert retries.delay().get(timeout=30) == 2
    assert short.apply_async(track=False).get(timeout=30) == 1
    assert group(untracked.s(number) for number in range(5)).delay().get(timeout=30) == [1, 2, 3, 4, 5]
    assert (untracked.s(1) | untracked.s() | untracked.s()).delay().get(timeout=30) == 4
    wait_until(lambda: _count(environment, "jobbridge_broker.messages") == 0)
    assert _count(environment, "jobs") == 0

    untracked.apply_async((1,), track=True).get(timeout=30)
    assert _count(environment, "jobs") == 1


def test_the_parts_of_a_chord_have_rows_which_count_them(
    app: Celery, environment: dict[str, str], celery_worker: StartWorker
) -> None:
    celery_worker("tests.integration.app.settlement_app", **environment)
    untracked = app.tasks["settled.untracked"]
    body: Any = app.signature("parity.total")

    assert chord([untracked.s(number) for number in range(3)])(body).get(timeout=30) == 6


def test_an_untracked_task_is_sent_in_the_callers_transaction(
    app: Celery, environment: dict[str, str]
) -> None:
    with psycopg.connect(environment["DATABASE_URL"]) as connection, app.enqueue_on(connection):
        app.tasks["settled.untracked"].delay(1)
        connection.rollback()
        assert _count(environment, "jobbridge_broker.messages") == 0
        app.tasks["settled.untracked"].delay(1)
        connection.commit()
    assert _count(environment, "jobbridge_broker.messages") == 1


def test_what_needs_the_row_is_refused(app: Celery) -> None:
    untracked = app.tasks["settled.untracked"]
    with pytest.raises(UnsupportedOption, match="singleton_key"):
        untracked.apply_async((1,), singleton_key="one")
    with pytest.raises(UnsupportedOption, match="cannot do without its row on temporal"):
        untracked.apply_async((1,), engine="temporal")
