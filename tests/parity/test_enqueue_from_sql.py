"""`jobbridge.enqueue` in SQL makes what Python makes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from jobbridge import Celery
from jobbridge.core.keys import Engine
from jobbridge.settings import load_settings
from tests.parity.conftest import World
from tests.support import Looking

Connection = psycopg.Connection[Any]


@pytest.fixture
def outside(world: World) -> Iterator[Connection]:
    with psycopg.connect(world.database_url, autocommit=True, row_factory=dict_row) as connection:
        yield connection


def enqueue(connection: Connection, world: World, task: str, args: Any = None, **options: Any) -> str:
    options = {"engine": world.engine.value, **options}
    given = "".join(f", {name} => %({name})s" for name in options)
    row = connection.execute(
        f"SELECT jobbridge.enqueue(%(task)s, %(args)s{given}) AS id".encode(),
        {"task": task, "args": None if args is None else Jsonb(args), **options},
    ).fetchone()
    assert row is not None
    return str(row["id"])


@pytest.mark.parametrize("args", [[2, 3], {"x": 2, "y": 3}])
def test_a_worker_runs_it(world: World, outside: Connection, args: Any) -> None:
    sent = enqueue(outside, world, "parity.add", args)
    assert world.app.AsyncResult(sent).get(timeout=60) == 5
    row = world.wait_for_status(sent, "completed")
    assert (row["attempt"], row["runner_type"], row["result"]) == (1, world.engine.value, 5)


def test_it_is_part_of_the_transaction(world: World) -> None:
    with psycopg.connect(world.database_url, row_factory=dict_row) as caller:
        lost = enqueue(caller, world, "parity.add", [1, 1])
        caller.rollback()
        kept = enqueue(caller, world, "parity.add", [2, 2])
        assert world.rows("job_id = ANY(%s::uuid[])", [lost, kept]) == []
        caller.commit()
    assert world.app.AsyncResult(kept).get(timeout=60) == 4
    assert world.rows("job_id = %s", lost) == []


def test_a_later_one_waits_and_can_be_cancelled(world: World, outside: Connection) -> None:
    later = datetime.now(UTC) + timedelta(hours=1)
    sent = enqueue(outside, world, "parity.add", [1, 1], run_at=later, tenant="t1", priority=4)
    row = world.wait_for_status(sent, "scheduled")
    assert (row["run_at"], row["tenant"], row["priority"]) == (later, "t1", 4)
    assert world.app.cancel_job(sent)
    assert world.row(sent)["status"] == "cancelled"
    left = "SELECT id FROM jobbridge_broker.messages WHERE correlation_id = %s"
    assert outside.execute(left, [sent]).fetchall() == []


def test_a_task_that_no_worker_knows_is_refused_with_what_they_know(
    world: World, outside: Connection
) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=r"parity\.ad'") as refused:
        enqueue(outside, world, "parity.ad", [1, 1])
    assert "parity.add" in (refused.value.diag.message_hint or "")


@pytest.mark.parametrize(
    ("args", "options", "message"),
    [
        (3, {}, "neither an object nor an array"),
        ([], {"priority": 10}, "priority is 10"),
        ([], {"engine": "cron"}, "no engine 'cron'"),
        ([], {"data": Jsonb({})}, "both args and data"),
        ([], {"queue": ""}, "name of its task"),
    ],
)
def test_what_cannot_be_is_refused(
    world: World, outside: Connection, args: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=message):
        enqueue(outside, world, "parity.add", args, **options)


def test_rows_and_messages_are_as_pythons(own_database: tuple[World, Connection]) -> None:
    world, outside = own_database
    later, last = datetime(2090, 1, 2, 3, 4, 5, 678900, tzinfo=UTC), datetime(2091, 1, 1, tzinfo=UTC)
    options = {"tenant": "t1", "priority": 3, "queue": "other"}
    from_sql = enqueue(
        outside, world, "nobody.knows", {"text": "ä"}, run_at=later, expires_at=last, **options
    )
    from_python = world.app.send_task(
        "nobody.knows", kwargs={"text": "ä"}, eta=later, expires=last, engine=world.engine, **options
    ).id

    rows = {str(row["job_id"]): plain(row) for row in world.rows()}
    assert rows[from_sql] == rows[from_python]
    stored = {
        row["correlation_id"]: plain(row)
        for row in outside.execute("SELECT * FROM jobbridge_broker.messages").fetchall()
    }
    assert len(stored) == (2 if world.engine is Engine.CELERY else 0)
    assert stored.get(from_sql) == stored.get(from_python)


#: What differs from one message to the next, or says who sent it.
_PASSING = (
    "id", "job_id", "task_id", "external_id", "root_id", "delivery", "created_at", "updated_at", "undelivered_since",
    "published_at", "correlation_id", "reply_to", "origin", "argsrepr", "kwargsrepr", "relayed_at", "delivery_mode",
    "expiration",
)  # fmt: skip


def plain(value: Any) -> Any:
    """Leave out what differs from one message to the next; read JSON."""
    match value:
        case dict():
            return {name: plain(each) for name, each in value.items() if name not in _PASSING}
        case bytes() | str() if value[:1] in (b"[", "{"):
            return plain(json.loads(value))
        case list():
            return [plain(each) for each in value]
        case _:
            return value


@pytest.fixture
def own_database(world: World, database_url: str) -> Iterator[tuple[World, Connection]]:
    """A database without workers: what is there stays as it was written."""
    settings = {**world.environment, "DATABASE_URL": database_url}
    app = Celery("sender", settings=load_settings(settings), set_as_current=False)
    with (
        psycopg.connect(database_url, autocommit=True, row_factory=dict_row) as connection,
        closing(Looking(database_url)) as looking,
        psycopg.connect(database_url, autocommit=True) as caller,
        app.enqueue_on(caller),
    ):  # nobody delivers it meanwhile
        yield replace(world, app=app, database_url=database_url, looking=looking), connection
    app.close()
