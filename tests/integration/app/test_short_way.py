"""Most jobs are sent past Celery's sender and kombu (`publish.short_way`): nobody can tell by what is stored."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import celery
import psycopg
import pytest
from celery import _state, chord, group, signals
from kombu import Exchange, Producer, Queue, serialization
from psycopg.rows import dict_row
from pydantic import BaseModel

from jobbridge import Celery, job
from jobbridge.app.execute import handlers
from jobbridge.app.publish.short_way import ShortWay
from jobbridge.app.publish.template import Template
from jobbridge.errors import InvalidJobData
from jobbridge.settings import load_settings

_LATER = datetime(2090, 1, 1, 12, tzinfo=UTC)
_ID = "0f8b5c6e-0000-4000-8000-00000000000"


class Order(BaseModel):
    number: int


#: What `apply_async` is given: each of it may be told in row and message.
CALLS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "numbers": {"args": (1, 2.5, True, None, -(10**20), 1e300)},
    "not a number": {"args": (float("nan"), float("inf"))},
    "many numbers": {"args": tuple(range(400))},
    "text": {"args": ["ä \\ \" ' \u2028 \U0001f600", "nul \x00"], "kwargs": {"é": "'", "x": b"\xff"}},
    "deep": {"args": [{"a": [1, {"b": [2, {"c": [3]}]}]}], "kwargs": {"when": _LATER}},
    "large": {"args": ["x" * 70_000]},
    "eta": {"eta": _LATER},
    "eta of no zone": {"eta": datetime(2090, 1, 1)},  # as users have it
    "eta as text": {"eta": "2090-01-01T00:00:00+02:00"},
    "countdown": {"countdown": 60},
    "expires": {"expires": 30},
    "expires at": {"expires": _LATER},
    "expires as text": {"expires": _LATER.isoformat()},
    "expired": {"expires": -5},
    "priority": {"priority": 7},
    "queue": {"queue": "other"},
    "queue of one's own": {"queue": Queue("third", Exchange("third"), routing_key="third")},
    "routing key": {"routing_key": "other"},
    "exchange": {"queue": "bound", "exchange": "topics", "routing_key": "a.b"},
    "serializer": {"serializer": "pickle", "args": [{1, 2}]},
    "compression": {"compression": "gzip"},
    "headers": {"headers": {"mine": [1, {"deep": "ä"}]}},
    "links": {"link": ("short.noop", "short.noop"), "link_error": "short.noop"},
    "limits": {"time_limit": 10, "soft_time_limit": 5},
    "shadow": {"shadow": "another name"},
    "ids": {"root_id": f"{_ID}1", "parent_id": f"{_ID}2", "group_id": f"{_ID}3", "group_index": 4},
    "id of its own": {"task_id": "order 66"},
    "reply_to": {"reply_to": "somebody"},
    "ignored": {"ignore_result": True},
    "properties": {"app_id": "mine", "expiration": 1000},
    "job options": {"tenant": "t1", "user_id": f"{_ID}9", "job_metadata": {"why": ["\x00", float("nan")]}},
    "untracked": {"track": False},
    "singleton": {"singleton_key": "one", "singleton_policy": "replace"},
    "no retry": {"retry": False},
    "delivery mode": {"delivery_mode": 1},
    "stamps": {"stamped_headers": ["stamp"], "stamp": "blue"},
    "replaced": {"replaced_task_nesting": 2, "retries": 3},
}

#: What goes Celery's way, as nothing else is sure to be the same.
CELERYS = {
    "routing key",
    "exchange",
    "compression",
    "properties",
    "delivery mode",
    "stamps",
    "expires as text",
    "expired",
}


@pytest.fixture
def app(database_url: str) -> Iterator[Celery]:
    app = Celery("short", settings=load_settings({"DATABASE_URL": database_url}))
    app.conf.task_queues = [
        Queue("celery"),
        Queue("other"),
        Queue("bound", Exchange("topics", type="topic"), routing_key="a.#"),
    ]

    @app.task(name="short.noop", shared=False, max_retries=5)
    def noop(*args: Any, **kwargs: Any) -> None: ...

    @app.task(name="short.100 %", shared=False)
    def plain(*args: Any, **kwargs: Any) -> None: ...

    app.conf.task_routes = {"short.limited": {"queue": "other", "priority": 3}}

    @app.task(name="short.limited", shared=False, time_limit=60, soft_time_limit=30, ignore_result=True)
    def limited() -> None: ...

    yield app
    app.close()


@pytest.fixture
def outside(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database_url, autocommit=True, row_factory=dict_row) as connection:
        yield connection


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether what was sent went the short way."""
    told: list[bool] = []
    send = ShortWay.send

    def noted(self: ShortWay, *arguments: Any) -> Any:
        result = send(self, *arguments)
        told.append(result is not None)
        return result

    monkeypatch.setattr(ShortWay, "send", noted)
    return told


@pytest.fixture
def templated(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether what was sent was made from a template, of that for which there was one."""
    told: list[bool] = []
    send = Template.send

    def noted(self: Template, *arguments: Any) -> Any:
        sent_as = send(self, *arguments)
        told.append(sent_as is not None)
        return sent_as

    monkeypatch.setattr(Template, "send", noted)
    return told


@contextmanager
def celerys_way() -> Iterator[None]:
    def receiver(**_: Any) -> None: ...

    signals.before_task_publish.connect(receiver)
    try:
        yield
    finally:
        signals.before_task_publish.disconnect(receiver)


def stored(outside: psycopg.Connection[Any], app: Celery, send: Callable[[], Any]) -> tuple[Any, ...]:
    """Give all that is stored by `send`, with what differs from one call to the next named the same."""
    for table in ("public.jobs", "jobbridge_broker.messages"):
        outside.execute(f"DELETE FROM {table}".encode())
    send()
    rows = outside.execute("SELECT * FROM public.jobs ORDER BY created_at, job_id").fetchall()
    # A time of expiry is also told in milliseconds from now: whichever is earlier counts.
    found = outside.execute(
        """
        SELECT queue, priority, due_at, date_bin('1s', expires_at + interval '0.5s', '2000-01-01 00:00Z') AS expires_at,
            correlation_id, content_type, content_encoding, headers::text,
            properties::text, encode(body, 'escape') AS body
        FROM jobbridge_broker.messages ORDER BY id
        """
    ).fetchall()
    told, ids = repr((rows, found)), dict[str, str]()

    def same(match: re.Match[str]) -> str:
        # Compressed bytes, pickles and hashes hold nothing that looks like one.
        return ids.setdefault(match.group().replace("-", ""), f"<id {len(ids)}>")

    told = re.sub(r"[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}", same, told)
    told = re.sub(r'"expiration":"\d{10,}"', "<years>", told)
    told = re.sub(r"2026-\d\d-\d\dT[\d:.]+", "<instant>", re.sub(r"\(2026,[\d, ]+", "(<instant>", told))
    return len(rows), len(found), told


def send(app: Celery, options: dict[str, Any]) -> Any:
    given = dict(options)
    for name in ("link", "link_error"):
        if given.get(name):
            names = [given[name]] if isinstance(given[name], str) else given[name]
            given[name] = [app.signature(each, args=[1]) for each in names]
    return app.tasks["short.noop"].apply_async(**given)


def test_row_and_message_are_the_same_by_either_way(
    app: Celery, outside: psycopg.Connection[Any], short: list[bool]
) -> None:
    for name, options in CALLS.items():
        with celerys_way():  # the first message to a queue goes over kombu, anyhow
            first = stored(outside, app, partial(send, app, options))
            assert stored(outside, app, partial(send, app, options)) == first, name
        short.clear()

        for _ in range(2):  # the second may be made from what the first left
            assert stored(outside, app, partial(send, app, options)) == first, name
        assert short == [name not in CELERYS] * 2, name
        assert first[1] == 1, name


#: What a task is sent with that was sent before; whether its message is made from that one's.
LIKE = {
    "other numbers": ({"args": (2, None, True)}, True),
    "text": ({"args": ["100 % of %(id)s", "ä\u2028 '\""], "kwargs": {"é": "'", "%s": 1}}, True),
    "ids": (
        {
            "task_id": f"{_ID}1",
            "root_id": f"{_ID}2",
            "parent_id": f"{_ID}3",
            "group_id": "a group",
            "group_index": 7,
        },
        True,
    ),
    "reply_to": ({"args": (), "reply_to": 'some"body'}, True),
    "tenant": ({"tenant": "t1"}, True),
    "options of ours that say nothing": ({"user_id": None, "job_metadata": None, "track": None}, True),
    "not a number": ({"args": (float("nan"),)}, False),
    "half a character": ({"args": ("\ud800",)}, False),
    "nul": ({"kwargs": {"a": "\x00"}}, False),
    "deep": ({"args": ([1, {"a": 2}],)}, False),
    "many": ({"args": tuple(range(100))}, False),
    "id of its own": ({"task_id": "order 66"}, False),
    "id in capitals": ({"task_id": f"{_ID}A"}, False),
    "other options": ({"shadow": "another"}, False),
    "expires": ({"expires": 30}, False),
}


def test_what_differs_in_arguments_and_ids_is_made_from_the_message_before(
    app: Celery, outside: psycopg.Connection[Any], templated: list[bool]
) -> None:
    noop = app.tasks["short.100 %"]
    for name, (options, is_alike) in LIKE.items():
        with celerys_way():
            first = stored(outside, app, partial(noop.apply_async, **options))
        noop.delay(1), templated.clear()

        assert stored(outside, app, partial(noop.apply_async, **options)) == first, name
        assert templated == [is_alike], name

        def in_bulk(options: dict[str, Any] = options) -> None:
            with app.bulk():
                noop.apply_async(**options)

        assert stored(outside, app, in_bulk) == first, name


def test_what_is_changed_in_between_counts(
    app: Celery, outside: psycopg.Connection[Any], templated: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    noop = app.tasks["short.100 %"]

    def change_retries() -> None:
        noop.max_retries = 9

    def change_track() -> None:
        noop.track = False

    def change_queue() -> None:
        app.conf.task_default_queue = "other"

    def declare_another_queue() -> None:
        app.amqp.queues["celery"] = Queue("celery", Exchange("celery"), routing_key="celery", durable=True)

    def take_another_encoder() -> None:
        encode = serialization.registry._encoders["json"]  # type: ignore[attr-defined]  # missing in the stubs
        other = encode._replace(encoder=lambda told: encode.encoder(told).replace(" ", ""))
        monkeypatch.setitem(serialization.registry._encoders, "json", other)  # type: ignore[attr-defined]

    for change in (change_retries, change_queue, declare_another_queue, take_another_encoder, change_track):
        noop.delay(1), noop.delay(1), templated.clear()
        change()
        sent = stored(outside, app, partial(noop.delay, 1))
        assert True not in templated, change.__name__
        with celerys_way():
            assert stored(outside, app, partial(noop.delay, 1)) == sent, change.__name__
        monkeypatch.undo()


def test_a_tasks_own_options_are_told(
    app: Celery, outside: psycopg.Connection[Any], short: list[bool]
) -> None:
    with celerys_way():
        first = stored(outside, app, app.tasks["short.limited"].delay)
    assert stored(outside, app, app.tasks["short.limited"].delay) == first
    assert short == [False, True]


def test_canvas_and_what_a_task_sends_are_the_same(
    app: Celery, outside: psycopg.Connection[Any], short: list[bool], templated: list[bool]
) -> None:
    noop = app.tasks["short.noop"]

    def inside() -> None:
        """As in a worker: another task is running."""
        noop.push_request(
            id=f"{_ID}5", root_id=f"{_ID}6", called_directly=False, delivery_info={"priority": 4}
        )
        _state._task_stack.push(noop)  # type: ignore[attr-defined]  # missing in the stubs
        try:
            result = noop.delay(1)
            assert noop.request.children == [result]
            noop.apply_async(add_to_parent=False)
            assert noop.request.children == [result]
        finally:
            _state._task_stack.pop()  # type: ignore[attr-defined]  # missing in the stubs
            noop.pop_request()

    for sent in (
        inside,
        lambda: (noop.s(1) | noop.s(2) | noop.si(3)).apply_async(),
        lambda: group(noop.s(number) for number in range(3)).apply_async(),
        lambda: chord([noop.s(1), noop.s(2)])(noop.s()),
        lambda: noop.chunks(zip(range(4), strict=False), 2).apply_async(),
    ):
        with celerys_way():
            first = stored(outside, app, sent)
        short.clear(), templated.clear()
        for _ in range(2):
            assert stored(outside, app, sent) == first
        assert all(short)
        assert sent is not inside or templated == [True] * 3, "but for the first, of which they are made"


def test_a_handlers_data_is_checked(app: Celery, outside: psycopg.Connection[Any], short: list[bool]) -> None:
    before = {spec.name: spec for spec in handlers.declared}
    try:

        @job("short.handler", queue="other", priority=2)
        def handler(ctx: Any, data: Order) -> None: ...

        task = app.tasks["short.handler"]
        with celerys_way():
            first = stored(outside, app, lambda: task.delay({"number": 1, "tenantId": "t7"}))
        for _ in range(2):
            assert stored(outside, app, lambda: task.delay({"number": 1, "tenantId": "t7"})) == first
        with pytest.raises(InvalidJobData):
            task.delay({"number": "many"})
        assert short == [False, True, True]
    finally:
        handlers.declared.clear()
        for spec in before.values():
            handlers.declared.register(spec)


def test_what_somebody_put_in_the_way_is_passed(
    app: Celery, short: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    noop = app.tasks["short.noop"]
    seen: list[str] = []

    def wrapped(owner: Any, name: str) -> Callable[..., Any]:
        original = getattr(owner, name)

        def method(*args: Any, **kwargs: Any) -> Any:
            seen.append(name)
            return original(*args, **kwargs)

        return method

    noop.delay()
    for owner, name in ((celery.Celery, "send_task"), (Producer, "publish"), (app.amqp, "send_task_message")):
        short.clear(), seen.clear()
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, wrapped(owner, name))
            noop.delay()
        assert name in seen
        assert not any(short), name
    for signal in (signals.before_task_publish, signals.after_task_publish, signals.task_sent):
        heard: list[str] = []

        def receiver(heard: list[str] = heard, **told: Any) -> None:
            heard.append(str(told["signal"].name))

        signal.connect(receiver)
        noop.delay()
        signal.disconnect(receiver)
        assert heard == [signal.name]
    with app.producer_pool.acquire() as producer, producer.batch():
        noop.apply_async(producer=producer)
    assert not any(short)
    noop.delay()
    assert short[-1]


def test_the_callers_transaction_and_a_bulk_are_the_same(
    app: Celery, outside: psycopg.Connection[Any], short: list[bool], database_url: str
) -> None:
    noop = app.tasks["short.noop"]

    def in_transaction() -> None:
        with psycopg.connect(database_url) as caller, app.enqueue_on(caller):
            noop.delay(1)
            noop.apply_async((2,), track=False)

    def in_bulk() -> None:
        with app.bulk():
            noop.apply_async((1,), countdown=timedelta(minutes=1).total_seconds(), priority=3)
            noop.apply_async((2,), track=False, queue="other")
            noop.apply_async((3,), job_metadata={"why": "\x00"})

    for sent in (in_transaction, in_bulk):
        with celerys_way():
            first = stored(outside, app, sent)
        short.clear()
        for _ in range(2):
            assert stored(outside, app, sent) == first
        assert all(short)
