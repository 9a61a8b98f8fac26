"""Who sends jobs under a rule that is full waits for nobody who does the same; who frees a place sees all that wait."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import psycopg
import pytest

from jobbridge import Celery
from jobbridge.settings import load_settings
from tests.parity.tasks import make_app
from tests.support import Looking, wait_until

ONE = {"limit": 1, "key": "one"}
WAITING_LOCKS = "SELECT count(*) AS number FROM pg_locks WHERE NOT granted AND locktype = 'advisory'"


@pytest.fixture
def app(database_url: str) -> Iterator[Celery]:
    app = make_app(settings=load_settings({"DATABASE_URL": database_url}), include=["tests.parity.tasks"])
    app.loader.import_default_modules()
    yield app
    app.close()


def send(app: Celery, rule: Any = ONE) -> Any:
    return app.tasks["parity.add"].apply_async([1, 2], concurrency=rule)


def states(looking: Looking, *results: Any) -> list[str | None]:
    found = {
        row["job_id"]: row["state"] for row in looking.rows("SELECT job_id, state FROM public.job_holds")
    }
    return [found.get(UUID(result.id)) for result in results]


def test_senders_share_a_full_rule_and_an_end_waits_for_them(app: Celery, database_url: str) -> None:
    looking = Looking(database_url)
    running = send(app)
    with psycopg.connect(database_url) as connection:
        with app.enqueue_on(connection):
            first = send(app)
        connection.execute(
            "SET CONSTRAINTS ALL IMMEDIATE"
        )  # what its commit does, and then it holds the lock

        second = send(app)  # it does not wait for that transaction
        assert states(looking, running, first, second) == ["running", None, "waiting"]

        ends = threading.Thread(target=lambda: app.cancel_job(running.id))
        ends.start()
        wait_until(lambda: looking.rows(WAITING_LOCKS)[0]["number"] == 1, timeout=30)
        connection.commit()
        ends.join(30)

    assert not ends.is_alive()
    assert states(looking, running, first, second) == [None, "running", "waiting"]  # the one that came first
    looking.close()


def test_a_limit_that_the_code_changes_counts_although_the_rule_is_full(
    app: Celery, database_url: str
) -> None:
    looking = Looking(database_url)
    sent = [send(app), send(app)]
    assert states(looking, *sent) == ["running", "waiting"]

    sent.append(send(app, {"limit": 2, "key": "one"}))

    assert states(looking, *sent) == ["running", "running", "waiting"]
    looking.close()


def test_a_place_that_becomes_free_is_taken_by_who_comes(app: Celery, database_url: str) -> None:
    looking = Looking(database_url)
    first, second = send(app), send(app)
    app.cancel_job(first.id)
    app.cancel_job(second.id)
    third = send(app)
    assert states(looking, first, second, third) == [None, None, "running"]
    looking.close()
