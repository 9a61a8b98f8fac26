"""A job whose id nobody can know is inserted as new, without a look for an older one: by the text that Postgres saw."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import _state

from jobbridge import Celery
from jobbridge.runners.runner import CeleryJobRunner
from jobbridge.settings import load_settings

#: One text may be there several times, for values of other types.
_RUNS = "SELECT statement, sum(generic_plans + custom_plans)::integer FROM pg_prepared_statements GROUP BY 1"


@pytest.fixture
def app(database_url: str) -> Iterator[Celery]:
    app = Celery("new", settings=load_settings({"DATABASE_URL": database_url}))

    @app.task(name="new.noop", shared=False)
    def noop(*args: Any) -> None: ...

    yield app
    app.close()


def ran(app: Celery, send: Callable[[], object]) -> dict[str, int]:
    """Give the statements that write jobs or messages and how often each ran, in the session that sends."""

    def runs() -> dict[str, int]:
        with app.database.connection() as own:  # the one that was used last
            return dict(own.execute(_RUNS).fetchall())

    before = runs()
    send()
    grown = {text: number - before.get(text, 0) for text, number in runs().items()}
    return {text: number for text, number in grown.items() if number and "INSERT INTO" in text}


def inside(task: Any, send: Callable[[], object]) -> None:
    """As in a worker's process: this task is running."""
    task.push_request(id="0f8b5c6e-0000-4000-8000-000000000005", called_directly=False, delivery_info={})
    _state._task_stack.push(task)  # type: ignore[attr-defined]  # missing in the stubs
    try:
        send()
    finally:
        _state._task_stack.pop()  # type: ignore[attr-defined]  # missing in the stubs
        task.pop_request()


def test_plain_sends_are_inserted_as_new(app: Celery) -> None:
    noop = app.tasks["new.noop"]

    def in_bulk(**options: Any) -> None:
        with app.bulk():
            for number in range(5):
                noop.apply_async((number,), **options)

    ways: dict[str, tuple[Callable[[], object], int]] = {
        "delay": (lambda: noop.delay(1), 1),
        "apply_async": (lambda: noop.apply_async((1,), priority=3), 1),
        "tenant": (lambda: noop.apply_async((1,), tenant="acme"), 1),
        "inside a task": (lambda: inside(noop, lambda: noop.delay(1)), 1),
        "bulk": (in_bulk, 1),
        "bulk of a tenant": (lambda: in_bulk(tenant="acme"), 1),
        "enqueue": (lambda: app.enqueue("new.noop", [1]), 1),
        "enqueue_many": (lambda: CeleryJobRunner(app).enqueue_many("new.noop", ([n] for n in range(5))), 1),
    }
    for name, (send, statements) in ways.items():
        send()  # over kombu, which declares the queue
        send()  # by the short way, of which the rest is made
        told = ran(app, send)
        assert sum(told.values()) == statements, (name, told)
        for text in told:
            assert "INTO public.jobs" in text, name
            assert "INTO jobbridge_broker.messages" in text, name
            assert "ON CONFLICT" not in text, name

    for send in (lambda: noop.apply_async((1,), track=False), lambda: in_bulk(track=False)):
        send(), send()
        told = ran(app, send)
        assert sum(told.values()) == 1, told
        assert all("public.jobs" not in text and "ON CONFLICT" not in text for text in told)


def test_an_id_that_is_given_may_be_another_jobs(app: Celery) -> None:
    noop = app.tasks["new.noop"]
    noop.delay(1), noop.delay(1)
    given = "0f8b5c6e-0000-4000-8000-000000000006"

    assert any("ON CONFLICT" in text for text in ran(app, lambda: noop.apply_async((1,), task_id=given)))
    with app.bulk():
        noop.apply_async((2,), task_id=given)
        noop.delay(3)
    with app.database.connection() as own:
        stored = own.execute("SELECT metadata -> 'data' -> 'args' ->> 0 FROM jobs ORDER BY 1").fetchall()
        sent = own.execute("SELECT count(*) FROM jobbridge_broker.messages").fetchone()
    assert [text for (text,) in stored] == ["1", "1", "1", "3"]
    assert sent == (4,)
