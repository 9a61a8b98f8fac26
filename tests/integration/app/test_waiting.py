"""Who waits for a result is told when its job has ended; the interval is for what nobody tells."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import psycopg
import pytest
from celery import states
from celery.exceptions import TaskRevokedError, TimeoutError

from jobbridge import Celery
from jobbridge.settings import load_settings
from tests.support import wait_until

#: Seconds. Nobody looks a second time before a test is over: who gets an answer was told.
NEVER = 10_000


@pytest.fixture
def app(database_url: str) -> Iterator[Celery]:
    app = Celery("waiting", settings=load_settings({"DATABASE_URL": database_url}))
    yield app
    app.close()


@pytest.fixture
def told(app: Celery) -> Iterator[Celery]:
    """The app while its process listens, because somebody waits for a job that does not end."""
    with app.result_listener.waiting_for(["somebody"]):
        app.result_listener.listen()
        wait_until(lambda: app.result_listener.is_reliable)
        yield app


def _in_thread(wait: Callable[[], Any], app: Celery, task_id: str) -> threading.Thread:
    """Have a thread wait for a job, and go on when it does."""
    waiter = threading.Thread(target=wait)
    waiter.start()
    wait_until(lambda: task_id in app.result_listener.waited_for)
    return waiter


def test_who_waits_is_told(told: Celery) -> None:
    results = [told.send_task("reports.make") for _ in range(2)]
    with ThreadPoolExecutor() as pool:
        got = [pool.submit(result.get, timeout=30, interval=NEVER, propagate=False) for result in results]
        for result in reversed(results):
            wait_until(lambda result=result: result.id in told.result_listener.waited_for)  # type: ignore[misc]
            told.cancel_job(result.id)

        assert all(isinstance(each.result(timeout=20), TaskRevokedError) for each in got)


def test_what_was_sent_here_is_not_asked_for_before_it_is_told(told: Celery, database_url: str) -> None:
    """But what others have sent is. The questions wait for a lock, where they are counted."""
    other = Celery("other", settings=told.settings)
    sent = [app.send_task("reports.make") for app in (other, told, other)]
    other.close()
    with (
        psycopg.connect(database_url) as connection,
        psycopg.connect(database_url, autocommit=True) as watching,
    ):
        connection.execute("LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE")
        waiters = [
            _in_thread(partial(told.AsyncResult(each.id).get, interval=NEVER, propagate=False), told, each.id)
            for each in sent
        ]

        def asking() -> int:
            (number,) = watching.execute(
                "SELECT count(*) FROM pg_locks WHERE relation = 'jobs'::regclass AND NOT granted"
            ).fetchone() or (0,)
            return int(number)

        wait_until(lambda: asking() >= 2)
        assert asking() == 2
    for result, waiter in zip(sent, waiters, strict=True):
        told.cancel_job(result.id)
        waiter.join(timeout=20)
        assert not waiter.is_alive()


def test_who_waits_for_many_is_told_of_each(told: Celery) -> None:
    ids = [told.send_task("reports.make").id for _ in range(3)]
    found: list[str] = []

    def wait() -> None:
        found.extend(task_id for task_id, _ in told.backend.get_many(ids, timeout=30, interval=NEVER))

    waiter = _in_thread(wait, told, ids[0])
    for number, task_id in enumerate(ids, 1):
        told.cancel_job(task_id)
        wait_until(lambda number=number: len(found) == number)  # type: ignore[misc]
    waiter.join()

    assert found == ids


def test_the_result_of_a_job_without_a_row_is_told(told: Celery) -> None:
    metas: list[dict[str, Any]] = []
    task_id = "no-row"
    waiter = _in_thread(
        lambda: metas.append(told.backend.wait_for(task_id, timeout=30, interval=NEVER)),
        told,
        str(told.backend.get_key_for_task(task_id)),
    )
    told.backend.set(
        told.backend.get_key_for_task(task_id),
        told.backend.encode({"status": states.SUCCESS, "result": 3, "task_id": task_id}),
    )
    waiter.join()

    assert [meta["result"] for meta in metas] == [3]


def test_nothing_is_told_while_nobody_waits(database_url: str, app: Celery) -> None:
    with psycopg.connect(database_url, autocommit=True) as listener:
        listener.execute("LISTEN jobbridge_results")
        app.cancel_job(app.send_task("reports.make").id)
        with app.result_listener.waiting_for(["somebody"]):
            app.result_listener.listen()
            wait_until(lambda: app.result_listener.is_reliable)
        second = app.send_task("reports.make").id
        app.cancel_job(second)

        assert [each.payload for each in listener.notifies(timeout=5, stop_after=1)] == [second]


def test_a_listener_that_was_cut_off_is_not_relied_upon(told: Celery, database_url: str) -> None:
    result = told.send_task("reports.make")
    waiter = threading.Thread(target=lambda: result.get(timeout=30, interval=0.5, propagate=False))
    waiter.start()
    wait_until(lambda: result.id in told.result_listener.waited_for)
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND application_name LIKE '%results%'"
        )
    wait_until(lambda: not told.result_listener.is_reliable)
    told.cancel_job(result.id)
    waiter.join()

    assert result.state == states.REVOKED


def test_a_forked_child_waits_by_itself(told: Celery) -> None:
    result = told.send_task("reports.make")
    child = os.fork()
    if child == 0:
        try:
            result.get(timeout=30, interval=0.5)
        except TaskRevokedError:
            os._exit(7)
        finally:
            os._exit(1)
    told.cancel_job(result.id)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_who_waits_in_vain_is_told_so(told: Celery) -> None:
    result = told.send_task("reports.make")

    with pytest.raises(TimeoutError):
        result.get(timeout=0.2, interval=NEVER)
    assert result.id not in told.result_listener.waited_for
