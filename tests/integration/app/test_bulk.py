"""What is sent in bulk is written in few statements, and as what is sent one by one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from celery import chord, group
from psycopg.rows import dict_row
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from jobbridge import Celery
from jobbridge.core.keys import Engine
from jobbridge.settings import load_settings


@pytest.fixture
def app(database_url: str) -> Iterator[Celery]:
    app = Celery("bulk", settings=load_settings({"DATABASE_URL": database_url}))

    @app.task(name="bulk.noop", shared=False)
    def noop(*args: Any, **kwargs: Any) -> None: ...

    yield app
    app.close()


@pytest.fixture
def outside(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database_url, autocommit=True, row_factory=dict_row) as connection:
        yield connection


def rows(outside: psycopg.Connection[Any]) -> int:
    return len(outside.execute("SELECT job_id FROM public.jobs").fetchall())


def messages(outside: psycopg.Connection[Any]) -> int:
    return len(outside.execute("SELECT id FROM jobbridge_broker.messages").fetchall())


def transactions(outside: psycopg.Connection[Any]) -> int:
    return len(outside.execute("SELECT DISTINCT xmin::text FROM public.jobs").fetchall())


def test_a_portion_is_one_transaction_and_ids_are_known_at_once(
    app: Celery, outside: psycopg.Connection[Any]
) -> None:
    with app.bulk(portion=10):
        sent = [app.tasks["bulk.noop"].delay(number) for number in range(25)]
        assert rows(outside) == 20
    assert (rows(outside), messages(outside), transactions(outside)) == (25, 25, 3)
    assert {str(row["job_id"]) for row in outside.execute("SELECT job_id FROM public.jobs")} == {
        each.id for each in sent
    }


def test_the_order_is_that_of_sending(app: Celery, outside: psycopg.Connection[Any]) -> None:
    with app.bulk(portion=7):
        sent = [app.tasks["bulk.noop"].delay(number).id for number in range(20)]
    stored = outside.execute("SELECT correlation_id FROM jobbridge_broker.messages ORDER BY id")
    assert [row["correlation_id"] for row in stored] == sent


def test_rows_and_messages_are_as_those_of_one_by_one(app: Celery, outside: psycopg.Connection[Any]) -> None:
    def send(number: int) -> None:
        app.tasks["bulk.noop"].apply_async(
            args=[number, '\u00e4 \\ " \u2028', "nul \x00", {"deep": [1.5, None]}],
            kwargs={"text": "'"},
            task_id=f"{number}f8b5c6e-0000-4000-8000-000000000001",
            priority=7,
            queue="other",
            eta=datetime(2090, 1, 1, tzinfo=UTC),
            expires=datetime(2091, 1, 1, tzinfo=UTC),
            expiration=3.5e9,
            tenant="t1",
            user_id="11111111-0000-4000-8000-000000000001",
            job_metadata={"why": "\x00"},
        )

    send(1)
    with app.bulk():
        send(2)

    assert_alike(outside, "SELECT * FROM public.jobs ORDER BY job_id")
    assert_alike(
        outside,
        "SELECT queue, priority, due_at, expires_at, content_type, content_encoding, headers::text, "
        "properties::text, encode(body, 'escape') AS body, deliveries FROM jobbridge_broker.messages ORDER BY id",
    )


def assert_alike(outside: psycopg.Connection[Any], query: str) -> None:
    passing = {"delivery", "job_id", "task_id", "external_id", "root_id", "created_at", "updated_at"}
    one, other = (
        {name: value for name, value in row.items() if name not in passing}
        for row in outside.execute(query).fetchall()
    )
    texts = ("headers", "metadata", "body", "properties")
    for name in texts:
        if name in one:
            assert len(str(one[name])) == len(str(other[name])), name
            one.pop(name), other.pop(name)
    assert one == other


def test_an_exception_discards_what_is_not_written(app: Celery, outside: psycopg.Connection[Any]) -> None:
    def interrupted() -> Iterator[int]:
        yield from range(15)
        raise LookupError

    with pytest.raises(LookupError), app.bulk(portion=10):
        list(map(app.tasks["bulk.noop"].delay, interrupted()))
    assert (rows(outside), messages(outside)) == (10, 10)


def test_in_the_callers_transaction_it_is_all_or_nothing(
    app: Celery, outside: psycopg.Connection[Any], database_url: str
) -> None:
    with psycopg.connect(database_url) as caller:
        for end in (caller.rollback, caller.commit):
            with app.enqueue_on(caller), app.bulk(portion=10):
                for number in range(15):
                    app.tasks["bulk.noop"].delay(number)
            assert (rows(outside), messages(outside)) == (0, 0)
            end()
    assert (rows(outside), messages(outside)) == (15, 15)


def test_what_is_sent_in_a_transaction_inside_is_that_transactions(
    app: Celery, outside: psycopg.Connection[Any], database_url: str
) -> None:
    with psycopg.connect(database_url) as caller, app.bulk():
        app.tasks["bulk.noop"].delay("in bulk")
        with app.enqueue_on(caller):
            app.tasks["bulk.noop"].delay("in the transaction")
        caller.rollback()
    assert (rows(outside), messages(outside)) == (1, 1)


@pytest.mark.parametrize("kind", ["psycopg", "connection", "session"])
def test_what_is_sent_in_a_savepoint_goes_with_it(
    app: Celery, outside: psycopg.Connection[Any], database_url: str, kind: str
) -> None:
    noop = app.tasks["bulk.noop"]
    with ExitStack() as stack:
        if kind == "psycopg":
            own: Any = stack.enter_context(psycopg.connect(database_url))
            savepoint = own.transaction
        else:
            engine = create_engine(database_url.replace("postgresql://", "postgresql+psycopg://"))
            stack.callback(engine.dispose)
            own = stack.enter_context(engine.connect() if kind == "connection" else Session(engine))
            savepoint = own.begin_nested
        with app.transaction(own), app.bulk():
            sent = [noop.delay(1).id]
            with suppress(ZeroDivisionError), savepoint():
                noop.delay(2)
                with savepoint():
                    noop.delay(3)
                raise ZeroDivisionError
            with savepoint():
                sent.append(noop.delay(4).id)
                with suppress(ZeroDivisionError), savepoint():
                    noop.delay(5)
                    raise ZeroDivisionError
            sent.append(noop.delay(6).id)
        own.commit()

    assert {str(row["job_id"]) for row in outside.execute("SELECT job_id FROM public.jobs")} == set(sent)
    assert messages(outside) == len(sent)


def test_an_id_that_there_is_already_sends_no_message(app: Celery, outside: psycopg.Connection[Any]) -> None:
    known = app.tasks["bulk.noop"].delay().id
    with app.bulk():
        app.tasks["bulk.noop"].apply_async(task_id=known)
        twice = app.tasks["bulk.noop"].delay().id
        app.tasks["bulk.noop"].apply_async(task_id=twice)
    assert (rows(outside), messages(outside)) == (2, 2)


def test_a_portion_whose_commit_went_through_unseen_is_not_sent_twice(
    app: Celery, outside: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    app.tasks["bulk.noop"].delay()
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
    with app.bulk():
        for number in range(5):
            app.tasks["bulk.noop"].delay(number)
    assert lost
    assert (rows(outside), messages(outside)) == (6, 6)


def test_jobs_for_temporal_are_rows_for_the_relay(app: Celery, outside: psycopg.Connection[Any]) -> None:
    with app.bulk():
        for number in range(5):
            app.tasks["bulk.noop"].apply_async(args=[number], engine=Engine.TEMPORAL)
    taken = app.jobs.take_undelivered(limit=50, older_than=timedelta())
    assert len(taken) == rows(outside) == 5
    assert {each.message["arguments"][0][0] for each in taken if each.message} == set(range(5))
    assert (messages(outside), transactions(outside)) == (0, 1)


def test_a_group_is_sent_in_portions_and_its_generator_runs_no_further_ahead(
    app: Celery, outside: psycopg.Connection[Any]
) -> None:
    seen: list[int] = []

    def members() -> Iterator[Any]:
        for number in range(1200):
            if number == 1100:
                seen.append(rows(outside))
            yield app.tasks["bulk.noop"].s(number)

    group(members()).apply_async()
    assert seen == [1000]
    assert (rows(outside), messages(outside)) == (1200, 1200)


def test_a_chord_header_is_sent_in_portions(app: Celery, outside: psycopg.Connection[Any]) -> None:
    chord([app.tasks["bulk.noop"].s(number) for number in range(20)])(app.tasks["bulk.noop"].s())
    waiting = outside.execute("SELECT DISTINCT xmin::text FROM jobbridge_broker.messages").fetchall()
    assert (messages(outside), len(waiting)) == (20, 1)


def test_a_chord_header_that_is_a_generator_runs_no_further_ahead(
    app: Celery, outside: psycopg.Connection[Any]
) -> None:
    seen: list[int] = []

    def parts() -> Iterator[Any]:
        for number in range(1200):
            if number == 1100:
                seen.append(rows(outside))
            yield app.tasks["bulk.noop"].s(number)

    chord(parts())(app.tasks["bulk.noop"].s())
    assert seen == [1000]
    sizes = outside.execute("SELECT size, counted FROM public.job_chords").fetchall()
    parts_of_it = outside.execute("SELECT chord_index FROM public.jobs ORDER BY chord_index").fetchall()
    assert sizes == [{"size": 1200, "counted": 0}]
    assert [each["chord_index"] for each in parts_of_it] == list(range(1200))


def test_untracked_messages_are_written_in_portions_too(
    app: Celery, outside: psycopg.Connection[Any]
) -> None:
    noop = app.tasks["bulk.noop"]

    def stored() -> tuple[list[str], int]:
        """Their ids, in order; by how many transactions."""
        found = outside.execute(
            "SELECT correlation_id, xmin::text FROM jobbridge_broker.messages ORDER BY id"
        ).fetchall()
        outside.execute("DELETE FROM jobbridge_broker.messages")
        return [row["correlation_id"] for row in found], len({row["xmin"] for row in found})

    with app.bulk(portion=10):
        sent = [noop.apply_async((number,), track=False).id for number in range(25)]
    assert stored() == (sent, 3)
    result = group(noop.s(number).set(track=False) for number in range(25)).apply_async()
    assert stored() == ([each.id for each in result], 1)
    with app.bulk(portion=10):
        for number in range(5):
            noop.apply_async((number,), track=False)
            noop.delay(number)
    assert (len(stored()[0]), rows(outside)) == (10, 5)

    def fail(number: int) -> tuple[int]:
        return (number // (12 - number),)

    with pytest.raises(ZeroDivisionError), app.bulk(portion=10):
        [noop.apply_async(fail(number), track=False) for number in range(20)]
    assert len(stored()[0]) == 10


def test_untracked_messages_of_a_transaction_are_its_own(
    app: Celery, outside: psycopg.Connection[Any], database_url: str
) -> None:
    for ends in (psycopg.Connection.rollback, psycopg.Connection.commit):
        with psycopg.connect(database_url) as mine, app.enqueue_on(mine):
            with app.bulk():
                [app.tasks["bulk.noop"].apply_async((number,), track=False) for number in range(3)]
            assert messages(outside) == 0
            ends(mine)
    assert messages(outside) == 3
