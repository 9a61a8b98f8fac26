"""`enqueue_many`: any number of rows, in constant memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import psycopg
import pytest

from jobbridge import Celery, CeleryJobRunner, TemporalJobRunner
from jobbridge.errors import UnknownHandler, UnsupportedOption
from jobbridge.settings import load_settings
from tests.forked import run_python
from tests.support import clean_environment


@pytest.fixture
def app(database_url: str) -> Iterator[Celery]:
    app = Celery("many", settings=load_settings({"DATABASE_URL": database_url}))

    @app.task(name="many.noop", shared=False)
    def noop(*args: Any, **kwargs: Any) -> None: ...

    yield app
    app.close()


def count(database_url: str, what: str) -> int:
    with psycopg.connect(database_url) as connection:
        row = connection.execute(what.encode()).fetchone()
    return int(row[0]) if row else 0


#: Sends rows from a process of its own, and prints what it holds at the 2,000th and after the last: how many objects
#: Python has, and the most memory that it ever had.
SEND = """
import gc, json, resource, sys
from jobbridge import Celery, CeleryJobRunner
from jobbridge.settings import load_settings

app = Celery("many", settings=load_settings({"DATABASE_URL": sys.argv[1]}))
number = int(sys.argv[2])

@app.task(name="many.noop", shared=False)
def noop(*args, **kwargs): ...

def peak():  # as in handlers/test_assets_large.py
    try:
        lines = open("/proc/self/status").read().splitlines()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))

def note():
    gc.collect()
    noted.append({"objects": sys.getallocatedblocks(), "peak": peak()})

def rows():
    for each in range(number):
        if each == 2_000:
            note()
        yield {"kwargs": {"number": each, "text": "x" * 200}}
    note()

noted = []
sent = CeleryJobRunner(app).enqueue_many("many.noop", rows())
print(json.dumps({"sent": sent, "noted": noted}))
"""


@pytest.mark.parametrize("number", [6_000, pytest.param(20_000, marks=pytest.mark.long)])
def test_memory_does_not_grow_with_the_rows(database_url: str, number: int) -> None:
    """Kept rows would be some 1,000 bytes and 20 objects each: the bounds are a third of the one, and one object."""
    done = run_python(["-c", SEND, database_url, str(number)], env=clean_environment(), timeout=200)

    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["sent"] == number
    early, late = told["noted"]
    assert late["objects"] - early["objects"] < number - 2_000
    assert late["peak"] - early["peak"] < (number - 2_000) / 3, "KiB"
    assert count(database_url, "SELECT count(*) FROM jobbridge_broker.messages") == number


def test_ids_options_and_count(app: Celery, database_url: str) -> None:
    ids: list[UUID] = []
    sent = CeleryJobRunner(app).enqueue_many(
        "many.noop", ([each] for each in range(7)), {"queue": "other", "tenant": "t1"}, on_id=ids.append
    )
    assert (sent, len(set(ids))) == (7, 7)
    with psycopg.connect(database_url) as connection:
        known = connection.execute(
            "SELECT job_id FROM jobs WHERE queue = 'other' AND tenant = 't1'"
        ).fetchall()
    assert {row[0] for row in known} == set(ids)


def test_on_temporal_the_rows_are_for_the_relay(app: Celery, database_url: str) -> None:
    assert TemporalJobRunner(app).enqueue_many("many.noop", [[1], [2]]) == 2
    waiting = "SELECT count(*) FROM jobs WHERE runner_type = 'temporal' AND undelivered_since IS NOT NULL"
    assert count(database_url, waiting) == 2


def test_rows_that_break_off_leave_whole_portions(app: Celery, database_url: str) -> None:
    def rows() -> Iterator[list[int]]:
        for each in range(700):
            yield [each]
        raise LookupError

    with pytest.raises(LookupError):
        CeleryJobRunner(app).enqueue_many("many.noop", rows())
    assert count(database_url, "SELECT count(*) FROM jobs") == 500


def test_what_cannot_be_for_many_is_refused(app: Celery) -> None:
    runner = CeleryJobRunner(app)
    with pytest.raises(UnsupportedOption, match="for many jobs"):
        runner.enqueue_many("many.noop", [[1]], {"singleton_key": "k"})
    with pytest.raises(UnknownHandler):
        runner.enqueue_many("many.nop", [[1]])
