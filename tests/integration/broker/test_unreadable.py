"""Messages that nobody can read: each is a dead letter with its reason, and the worker goes on with the others."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from kombu import Connection

from jobbridge import Celery
from jobbridge.broker import register
from jobbridge.settings import load_settings
from tests.conftest import StartWorker
from tests.support import wait_until

GOOD = [[1, 2], {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}]


def headers(**own: Any) -> dict[str, Any]:
    task_id = str(uuid.uuid4())
    known = {"lang": "py", "task": "parity.add", "id": task_id, "root_id": task_id, "retries": 0}
    return {name: value for name, value in {**known, **own}.items() if value is not ...}


def raw(
    *,
    header: Any = None,
    properties: Any = None,
    body: Any = GOOD,
    content_type: str | None = "application/json",
) -> dict[str, Any]:
    return {
        "headers": header if isinstance(header, str) else json.dumps(headers() if header is None else header),
        "properties": json.dumps({} if properties is None else properties),
        "body": body if isinstance(body, bytes) else json.dumps(body).encode(),
        "content_type": content_type,
        "content_encoding": "utf-8",
    }


HUGE = "1" + "0" * 5000

#: What somebody's program, or a bug, may have written into the queue.
UNREADABLE: dict[str, dict[str, Any]] = {
    "headers: a list": raw(header=[1]),
    "headers: a number": raw(header=3),
    "headers: null": raw(header="null"),
    "headers: a type of kombu's that is none": raw(
        header={**headers(), "x": {"__type__": "uuid", "__value__": "no uuid"}}
    ),
    "headers: a huge number": raw(header=json.dumps({**headers(), "retries": 0})[:-1] + f', "n": {HUGE}}}'),
    "properties: a list": raw(properties=[1]),
    "properties: delivery_info": raw(properties={"delivery_info": "here"}),
    "no task": raw(header=headers(task=...)),
    "task: a list": raw(header=headers(task=["parity.add"])),
    "no id": raw(header=headers(id=...)),
    "id: a number": raw(header=headers(id=7)),
    "id: NUL": raw(header=headers(id="a\x00b")),
    "id: empty": raw(header=headers(id="")),
    "root_id: an object": raw(header=headers(root_id={"a": 1})),
    "group: NUL": raw(header=headers(group="a\x00b")),
    "retries: text": raw(header=headers(retries="many")),
    "retries: beyond": raw(header=headers(retries=10**30)),
    "timelimit: text": raw(header=headers(timelimit="soon")),
    "timelimit: beyond": raw(header=headers(timelimit=[1e308, None])),
    "eta: no date": raw(header=headers(eta="tomorrow")),
    "eta: a number": raw(header=headers(eta=5)),
    "eta: beyond the end": raw(header=headers(eta="9999-12-31T23:59:59-14:00")),
    "eta: before the beginning": raw(header=headers(eta="0001-01-01T00:00:00+14:00")),
    "eta: year 10000": raw(header=headers(eta="10000-01-01T00:00:00Z")),
    "eta: negative": raw(header=headers(eta="-0044-03-15T12:00:00")),
    "eta: odd zone": raw(header=headers(eta="2030-01-01T00:00:00+99:99")),
    "expires: no date": raw(header=headers(expires="never")),
    "expires: a list": raw(header=headers(expires=[1])),
    "expires: beyond the end": raw(header=headers(expires="9999-12-31T23:59:59-14:00")),
    "stamped_headers: a number": raw(header=headers(stamped_headers=5, stamps={})),
    "stamped_headers: lists": raw(header=headers(stamped_headers=[["a"]], stamps={})),
    "stamps: a list": raw(header=headers(stamped_headers=["a"], stamps=["x"])),
    "ours: text": raw(header=headers(jobbridge="mine")),
    "ours: delivery": raw(header=headers(jobbridge={"tenant": "t", "delivery": "no uuid"})),
    "ours: tenant": raw(header=headers(jobbridge={"tenant": "a\x00b"})),
    "ours: tenant is a list": raw(header=headers(jobbridge={"tenant": ["t"]})),
    "ours: engine": raw(header=headers(jobbridge={"tenant": "t", "engine": "steam"})),
    "body: no JSON": raw(body=b"{"),
    "body: not UTF-8": raw(body=b"\xff\xfe"),
    "body: empty": raw(body=b""),
    "body: a number": raw(body=5),
    "body: an object": raw(body={"a": 1}),
    "body: two": raw(body=[[1], {}]),
    "body: args are text": raw(body=["ab", {}, {}]),
    "body: kwargs are a list": raw(body=[[1, 2], [1], {}]),
    "body: embed is text": raw(body=[[1, 2], {}, "x"]),
    "body: chord is text": raw(body=[[1, 2], {}, {"chord": "x"}]),
    "body: chain is a number": raw(body=[[1, 2], {}, {"chain": 3}]),
    "body: callbacks are texts": raw(body=[[1, 2], {}, {"callbacks": ["x"]}]),
    "body: errbacks are numbers": raw(body=[[1, 2], {}, {"errbacks": [7]}]),
    "body: chain of nothing": raw(body=[[1, 2], {}, {"chain": [{}]}]),
    "body: a huge number": raw(body=f"[[{HUGE}, 2], {{}}, {{}}]".encode()),
    "body: deep": raw(body=b"[" * 100_000),
    "content type: unknown": raw(content_type="application/x-nobody"),
    "content type: not accepted": raw(content_type="application/x-msgpack"),
    "compression: unknown": raw(header=headers(compression="application/x-nobody")),
}


def put(connection: psycopg.Connection[Any], name: str, message: dict[str, Any]) -> None:
    connection.execute(
        "INSERT INTO jobbridge_broker.messages"
        " (queue, priority, correlation_id, content_type, content_encoding, headers, properties, body) VALUES"
        " ('celery', 0, %(name)s, %(content_type)s, %(content_encoding)s, %(headers)s, %(properties)s, %(body)s)",
        {"name": name, **message},
    )


@pytest.fixture
def outside(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_worker_buries_what_it_cannot_read_and_runs_the_rest(
    database_url: str, outside: psycopg.Connection[Any], celery_worker: StartWorker, tmp_path: Any, pool: str
) -> None:
    settings = {"DATABASE_URL": database_url}
    app = Celery("sender", settings=load_settings(settings))
    good = []
    for name, message in UNREADABLE.items():
        put(outside, name, message)
        good.append(app.send_task("parity.add", [1, 2]).id)

    worker = celery_worker("tests.parity.app", "-P", pool, PARITY_FOLDER=str(tmp_path), **settings)

    wait_until(
        lambda: outside.execute("SELECT 1 FROM jobbridge_broker.messages").fetchone() is None, timeout=60
    )
    rows = outside.execute("SELECT correlation_id, reason FROM jobbridge_broker.dead_letters").fetchall()
    app.close()
    dead = dict(rows)
    assert set(UNREADABLE) - set(dead) == set()
    assert {name: reason for name, reason in dead.items() if not reason.startswith("unreadable: ")} == {}
    wait_until(
        lambda: (
            len(outside.execute("SELECT task_id FROM jobs WHERE status = 'completed'").fetchall())
            == len(good)
        )
    )
    assert worker.is_running
    assert worker.log().count("ready.") == 1


def test_a_message_that_is_due_never_keeps_none_from_being_delivered(
    database_url: str, outside: psycopg.Connection[Any]
) -> None:
    register()
    put(outside, "never", raw())
    outside.execute("UPDATE jobbridge_broker.messages SET due_at = 'infinity'")
    with Connection(f"jobbridge+{database_url}") as connection:
        queue = connection.SimpleQueue("celery")
        queue.put({"a": 1})
        got = queue.get(timeout=10)
        got.ack()
        queue.close()

    assert got.payload == {"a": 1}
    left = outside.execute("SELECT correlation_id FROM jobbridge_broker.messages").fetchall()
    assert left == [("never",)]


def test_plain_kombu_gets_the_next_message(database_url: str, outside: psycopg.Connection[Any]) -> None:
    register()
    put(outside, "bad", UNREADABLE["headers: a list"])
    put(outside, "worse", UNREADABLE["properties: a list"])
    with Connection(f"jobbridge+{database_url}") as connection:
        queue = connection.SimpleQueue("celery")
        queue.put({"a": 1})
        got = queue.get(timeout=10)
        got.ack()
        queue.close()

    assert got.payload == {"a": 1}
    dead = outside.execute("SELECT correlation_id FROM jobbridge_broker.dead_letters ORDER BY 1").fetchall()
    assert dead == [("bad",), ("worse",)]
