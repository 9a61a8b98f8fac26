"""A job's row and its message are one statement, refused or written together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest
from kombu import Exchange, Queue

from jobbridge import Celery, Outcome
from jobbridge.broker.routing import notification_channel
from jobbridge.settings import load_settings
from jobbridge.store.database import Database

ROWS_AND_MESSAGES = """
SELECT (SELECT count(*) FROM public.jobs), (SELECT count(*) FROM jobbridge_broker.messages)
"""


@pytest.fixture
def app(database_url: str) -> Iterator[Celery]:
    app = app_on(database_url)
    yield app
    app.close()


def app_on(url: str) -> Celery:
    app = Celery("publish", settings=load_settings({"DATABASE_URL": url}))

    @app.task(name="publish.noop", shared=False)
    def noop(*args: Any) -> None: ...

    return app


def stored(url: str) -> tuple[int, int]:
    with psycopg.connect(url) as connection:
        row = connection.execute(ROWS_AND_MESSAGES).fetchone()
    assert row is not None
    return row


def test_row_and_message_are_one_statement(app: Celery, database_url: str) -> None:
    with psycopg.connect(database_url) as caller, app.enqueue_on(caller):
        for _ in range(3):
            app.tasks["publish.noop"].delay()
        # Each statement moves the transaction's command counter on; triggers of the row do, too.
        commands = caller.execute(
            "SELECT count(DISTINCT (job.cmin::text, message.cmin::text)) "
            "FROM public.jobs AS job JOIN jobbridge_broker.messages AS message "
            "ON message.correlation_id = job.task_id AND message.cmin = job.cmin"
        ).fetchone()
        assert commands == (3,)


def test_a_job_that_there_is_already_sends_no_message(app: Celery, database_url: str) -> None:
    task = app.tasks["publish.noop"]
    first = task.apply_async(task_id="5f8b5c6e-0000-4000-8000-000000000001")
    again = task.apply_async(task_id="5f8b5c6e-0000-4000-8000-000000000001")

    assert (first.job.outcome, again.job.outcome) == (Outcome.CREATED, Outcome.DEDUPLICATED)
    assert stored(database_url) == (1, 1)


def test_a_message_that_cannot_be_stored_leaves_no_row(app: Celery, database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as admin:
        admin.execute("ALTER TABLE jobbridge_broker.messages ADD CONSTRAINT no_more CHECK (false) NOT VALID")
    with pytest.raises(Exception, match="no_more"):
        app.tasks["publish.noop"].delay()
    assert stored(database_url) == (0, 0)


def test_a_commit_that_went_through_unseen_is_not_sent_twice(
    app: Celery, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server has committed, and its answer is lost with the connection."""
    app.tasks["publish.noop"].delay()
    lost = cut_after_the_next_commit(app.database, monkeypatch)

    sent = app.tasks["publish.noop"].delay()

    assert lost == [1]
    assert sent.job.outcome is Outcome.CREATED
    assert stored(database_url) == (2, 2)


def cut_after_the_next_commit(database: Database, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """End the session of the next statement once it is committed, before its answer is read."""
    lost: list[int] = []
    execute = psycopg.RawCursor.execute

    def cut(cursor: Any, *arguments: Any, **named: Any) -> Any:
        answer = execute(cursor, *arguments, **named)
        if not lost:
            lost.append(1)
            cursor.connection.close()
            raise psycopg.OperationalError("server closed the connection unexpectedly")
        return answer

    monkeypatch.setattr(psycopg.RawCursor, "execute", cut)
    return lost


def test_an_exchange_that_leads_to_two_queues_makes_one_row(app: Celery, database_url: str) -> None:
    topic = Exchange("topic", type="topic")
    app.conf.task_queues = [
        Queue("one", topic, routing_key="some.#"),
        Queue("two", topic, routing_key="#.other"),
    ]
    with app.connection_for_write() as connection:
        for queue in app.conf.task_queues:
            queue(connection.default_channel).declare()

    app.tasks["publish.noop"].apply_async(exchange="topic", routing_key="some.other")

    assert stored(database_url) == (1, 2)


@pytest.mark.parametrize("is_in_bulk", [False, True])
def test_what_was_not_stored_keeps_no_later_message_silent(
    app: Celery, database_url: str, is_in_bulk: bool
) -> None:
    """A process that notified a queue a moment ago is silent; one that only meant to is not."""
    task = app.tasks["publish.noop"]
    known = task.apply_async(queue="other").id
    with psycopg.connect(database_url, autocommit=True) as listener, ExitStack() as stack:
        listener.execute(f'LISTEN "{notification_channel("q")}"'.encode())
        if is_in_bulk:
            stack.enter_context(app.bulk())
            task.apply_async(queue="q")  # waits
            task.apply_async(queue="q", singleton_key="goes at once")
        else:
            task.apply_async(queue="q", task_id=known)
            task.apply_async(queue="q")
        assert len(list(listener.notifies(timeout=10, stop_after=1))) == 1
