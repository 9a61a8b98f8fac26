"""What is sent inside `atomic()` belongs to its transaction, whichever driver Django uses."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from psycopg.rows import tuple_row

from jobbridge.core.keys import Engine
from tests.integration.django.project import Project
from tests.support import wait_until

_TASKS = """

from django.db import OperationalError, connection, transaction


@shared_task(bind=True, max_retries=1)
@transaction.atomic
def bill(self, number):
    add.delay(number, 1)
    if self.request.retries == 0:
        raise self.retry(countdown=0)
    return self.request.retries


@shared_task
def backend_of_django():
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        return cursor.fetchone()[0]


@shared_task
def lose_connection():
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")
    except OperationalError:
        return connection.connection.closed != 0
"""

_SENDS = """
import uuid

import psycopg
from celery import chain, group
from django.conf import settings
from django.db import connection, connections, transaction

import jobbridge
from jobbridge import get_job_runner
from jobbridge.settings import load_settings
from mysite.celery import app
from shop.tasks import add

other = psycopg.connect(load_settings().database_url, autocommit=True)


def number():
    return other.execute("SELECT count(*) FROM jobs").fetchone()[0]


def send():
    with jobbridge.bulk():
        many = [add.delay(6, each) for each in range(2)]
    return [
        add.delay(1, 1),
        add.apply_async((2, 2), task_id="not-a-uuid-%s" % uuid.uuid4()),
        chain(add.s(1, 2), add.s(3)).apply_async().parent,
        *group(add.s(each, each) for each in range(3)).apply_async().results,
        add.apply_async((3, 3), singleton_key="one", singleton_policy="replace"),
        app.AsyncResult(str(get_job_runner().schedule_job("shop.tasks.add", {"args": [4, 4]}).job_id)),
        *many,
    ]


print("driver", connection.Database.__name__)
add.delay(9, 9)  # the way to the queue is known from here on
before = number()
try:
    with transaction.atomic():
        lost = send()
        assert number() == before, "it is there before the commit"
        raise LookupError
except LookupError:
    pass
assert number() == before, "it is there after a rollback"
with transaction.atomic():
    kept = send()
    try:
        with transaction.atomic():
            lost += send()[:2]
            raise LookupError
    except LookupError:
        pass
    with transaction.atomic():
        kept.append(add.delay(7, 7))
    with jobbridge.bulk():
        kept.append(add.delay(7, 8))
        try:
            with transaction.atomic():
                lost.append(add.delay(7, 9))
                raise LookupError
        except LookupError:
            pass
    with jobbridge.transaction():
        kept.append(add.delay(8, 8))
    ids = [each.id for each in kept]
    assert all(ids) and number() == before
    add.delay_on_commit(10, 10)
    failed = other.execute("SELECT gen_random_uuid()").fetchone()
assert number() > before + len(kept)
app._settings = load_settings(join_transactions=False)
with transaction.atomic():
    now = number()
    add.delay(11, 11)
    assert number() == now + 1, "it was to be sent at once"
app._settings = None
print("kept", *ids)
print("lost", *(each.id for each in lost))
"""


def values(told: str, name: str) -> list[str]:
    [line] = [line for line in told.splitlines() if line.startswith(f"{name} ")]
    return line.split()[1:]


def rows(url: str, statement: str, *values: Any) -> list[tuple[Any, ...]]:
    with psycopg.connect(url, row_factory=tuple_row) as connection:
        return connection.execute(statement, values).fetchall()  # type: ignore[call-overload]


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
@pytest.mark.parametrize("engine", [Engine.CELERY, Engine.TEMPORAL], ids=str)
def test_commit_sends_and_rollback_leaves_nothing(
    project: Project, driver: str, engine: Engine, empty_database_url: str, task_queue: str,
    request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    project.environment = {"JOB_RUNNER_TYPE": engine.value, "TEMPORAL_JOB_TASK_QUEUE": task_queue}
    if engine is Engine.TEMPORAL:
        project.environment["TEMPORAL_ADDRESS"] = request.getfixturevalue("temporal_server")
    if driver == "psycopg2":
        text = project.settings.read_text()
        project.settings.write_text(f"from jobbridge.django import keep_psycopg2\nkeep_psycopg2()\n{text}")
    project.add("mysite/settings.py", 'DATABASES["default"]["CONN_MAX_AGE"] = 600\n')
    project.add("shop/tasks.py", _TASKS)
    project.manage("migrate", "-v", "0")
    told = project.shell(_SENDS)
    assert values(told, "driver") == [driver]
    kept, lost = values(told, "kept"), values(told, "lost")
    with project.worker(engine, "-P", "prefork" if driver == "psycopg" else "threads"):
        bill, backend = project.shell(
            "from shop.tasks import bill, backend_of_django, lose_connection\n"
            "lose_connection.delay().get(timeout=60)\n"
            "print(bill.delay(5).id, backend_of_django.delay().get(timeout=60))"
        ).split()

        open_ones = "SELECT task_id, status FROM jobs WHERE status <> 'completed'"
        wait_until(
            lambda: not rows(empty_database_url, open_ones), timeout=60, message="all jobs are completed"
        )
        found = {task_id for (task_id,) in rows(empty_database_url, "SELECT task_id FROM jobs")}
        assert set(kept) <= found
        assert not set(lost) & found
        # Its retry was sent, although what it raised rolled back what else was sent in that attempt.
        assert rows(empty_database_url, "SELECT attempt FROM jobs WHERE task_id = %s", bill) == [(2,)]
        parents = "SELECT count(*) FROM jobs WHERE parent_id = (SELECT job_id FROM jobs WHERE task_id = %s)"
        assert rows(empty_database_url, parents, bill) == [(1,)]

        session = "SELECT 1 FROM pg_stat_activity WHERE pid = %s"
        wait_until(
            lambda: not rows(empty_database_url, session, int(backend)),
            timeout=20,
            message="Django's connection is closed after its task",
        )
