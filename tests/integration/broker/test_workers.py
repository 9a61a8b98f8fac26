"""Real `celery worker` processes of a plain Celery app: crashes, restarts, time, remote control."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import psycopg
import pytest
from celery import Celery
from psycopg.rows import dict_row

from jobbridge.dev.postgres import run_postgres
from jobbridge.dev.process import free_port
from jobbridge.store.schema.migrate import migrate
from tests.integration.broker.support import APP, Tables, Worker, celery_command
from tests.support import wait_until


@pytest.fixture
def tables(database_url: str) -> Iterator[Tables]:
    tables = Tables(database_url)
    yield tables
    tables.connection.close()


class StartWorker(Protocol):
    def __call__(self, name: str, pool: str = "prefork", *arguments: str) -> Worker: ...


@pytest.fixture
def start(tables: Tables, tmp_path: Path) -> Iterator[StartWorker]:
    with ExitStack() as started:

        def start_worker(name: str, pool: str = "prefork", *arguments: str) -> Worker:
            worker = Worker(tables, tmp_path, name, pool, arguments)
            started.callback(lambda: print(f"--- log of {name} ---\n{worker.log()}"))
            started.callback(worker.end_all)
            return worker

        yield start_worker


@pytest.fixture
def app(tables: Tables) -> Iterator[Celery]:
    """Another process's view of the app: it sends tasks by their names."""
    app = Celery("client", broker=tables.broker_url, set_as_current=False)
    app.conf.task_ignore_result = True
    yield app
    app.close()


def send(app: Celery, task: str, *args: Any, **options: Any) -> str:
    return str(app.send_task(f"{APP}.{task}", args, **options).id)


def send_many(app: Celery, task: str, texts: list[str]) -> None:
    for text in texts:
        send(app, task, text)


# -- crashes


def test_what_a_killed_prefork_worker_had_is_with_another_in_seconds(
    app: Celery, tables: Tables, start: StartWorker
) -> None:
    first = start("first", "prefork", "-c", "2").wait_until_ready()
    send(app, "work", "long", 60)
    tables.wait_for_notes("started", {"long"})
    start("second", "prefork", "-c", "2").wait_until_ready()

    first.kill()

    wait_until(lambda: tables.notes("started") == ["long", "long"], timeout=30)


def test_what_the_dead_had_asked_for_is_freed_soon_too(
    app: Celery, tables: Tables, start: StartWorker
) -> None:
    """Its last claim is done when its process was buried already: nobody's lease."""
    first = start("first", "solo").wait_until_ready()
    send(app, "work", "first", 60)
    tables.wait_for_notes("started", {"first"})
    number = tables.number("SELECT leased_by FROM jobbridge_broker.messages WHERE leased_by IS NOT NULL")
    start("second", "prefork", "-c", "2").wait_until_ready()
    first.kill()
    wait_until(
        lambda: not tables.rows("SELECT FROM jobbridge_broker.consumers WHERE id = %s", number), timeout=30
    )

    send(app, "work", "late", queue="elsewhere")
    tables.rows(
        "UPDATE jobbridge_broker.messages"
        " SET queue = 'celery', leased_by = %s, deliveries = 1 WHERE queue = 'elsewhere' RETURNING id",
        number,
    )

    tables.wait_for_notes("started", {"late"})


@pytest.mark.parametrize("pool", ["threads", "solo"])
def test_a_killed_worker_loses_nothing(pool: str, app: Celery, tables: Tables, start: StartWorker) -> None:
    first = start("first", pool, "-c", "2").wait_until_ready()
    send(app, "work", "long", 60)
    send_many(app, "count_one", [])
    tables.wait_for_notes("started", {"long"})
    prefetched = [f"n{number}" for number in range(4)]
    if pool == "solo":
        send_many(app, "count_one", prefetched)
    first.kill()
    tables.connection.execute(
        "UPDATE jobbridge_broker.messages SET body = %s WHERE leased_by IS NOT NULL", [_short()]
    )

    start("second", pool, "-c", "2").wait_until_ready()

    tables.wait_for_notes("ended", {"again"}, timeout=10)
    if pool == "solo":
        tables.wait_for_notes("ended", set(prefetched))
    tables.wait_until_empty()


def _short() -> bytes:
    return b'[["again", 0], {}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]'


@pytest.mark.long
def test_every_task_runs_once_on_two_workers(app: Celery, tables: Tables, start: StartWorker) -> None:
    texts = [f"n{number}" for number in range(1000)]
    for worker in [start("first", "threads", "-c", "4"), start("second", "prefork", "-c", "2")]:
        worker.wait_until_ready()

    send_many(app, "count_one", texts)

    tables.wait_until_empty(timeout=60)
    assert Counter(tables.notes("ended")) == Counter(texts)


@pytest.mark.long
def test_a_worker_that_dies_amid_a_thousand_tasks_loses_none(
    app: Celery, tables: Tables, start: StartWorker
) -> None:
    texts = [f"n{number}" for number in range(1000)]
    first = start("first", "prefork", "-c", "2").wait_until_ready()
    second = start("second", "prefork", "-c", "2").wait_until_ready()
    send_many(app, "count_one", texts)
    wait_until(lambda: len(tables.notes("ended")) > 200)

    first.kill()

    tables.wait_until_empty(timeout=60)
    assert set(tables.notes("ended")) == set(texts)
    assert len(tables.notes("ended")) <= len(texts) + 12  # what the dead one held, at most, ran twice
    assert second.stop() == 0


def test_a_task_that_kills_its_worker_ends_as_a_dead_letter(
    app: Celery, tables: Tables, start: StartWorker
) -> None:
    send(app, "crash", "poison")
    for number in range(3):
        worker = start(f"victim{number}", "solo")
        wait_until(lambda: worker.process.poll() is not None, timeout=30)  # noqa: B023
    start("last", "solo").wait_until_ready()

    wait_until(lambda: tables.dead_letters, timeout=10)
    assert tables.dead_letters[0]["reason"] == "too_many_deliveries"
    assert tables.notes("started") == ["poison"] * 3
    assert tables.messages == []


# -- lost sessions


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_worker_survives_the_end_of_its_sessions(
    pool: str, app: Celery, tables: Tables, start: StartWorker
) -> None:
    worker = start("only", "prefork", "-c", "2").wait_until_ready()
    send(app, "count_one", "before")
    tables.wait_for_notes("ended", {"before"})

    for number in range(2):
        tables.end_sessions()
        send(app, "count_one", f"after{number}")
        tables.wait_for_notes("ended", {f"after{number}"})

    assert worker.process.poll() is None
    assert "pong" in celery_command(tables, "inspect", "ping", "-t", "5", "-d", "only@test")
    assert worker.stop() == 0


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_task_that_runs_while_the_session_is_lost_runs_once(
    pool: str, app: Celery, tables: Tables, start: StartWorker
) -> None:
    start("first", pool, "-c", "1").wait_until_ready()
    send(app, "work", "long", 7)
    tables.wait_for_notes("started", {"long"})
    send_many(app, "count_one", ["a", "b", "c", "d", "e"])
    wait_until(lambda: len([each for each in tables.messages if each["leased_by"]]) >= 4)
    start("second", "solo").wait_until_ready()  # would take it

    tables.end_sessions()

    tables.wait_for_notes("ended", {"long", "a", "b", "c", "d", "e"})
    tables.wait_until_empty()
    assert tables.notes("started") == ["long"]


@pytest.fixture
def restarting(server_folder: Path) -> Iterator[tuple[Tables, Callable[[], None]]]:
    """A database on a server of its own, and how to restart that."""
    with ExitStack() as stack:
        folder, port = server_folder / "restarting", free_port()
        running = stack.enter_context(ExitStack())
        server = running.enter_context(run_postgres(folder, port=port))
        url = server.create_database("restarting")
        migrate(url)
        tables = Tables(url)

        def restart() -> None:
            tables.connection.close()
            running.close()
            running.enter_context(run_postgres(folder, port=port))
            tables.connection = psycopg.connect(url, autocommit=True, row_factory=dict_row)

        yield tables, restart
        tables.connection.close()


def test_a_worker_survives_a_restart_of_postgres(
    restarting: tuple[Tables, Callable[[], None]], tmp_path: Path
) -> None:
    tables, restart = restarting
    worker = Worker(tables, tmp_path, "only", "prefork", ["-c", "2"])
    try:
        worker.wait_until_ready()
        client = Celery("client", broker=tables.broker_url, set_as_current=False)
        send(client, "count_one", "before")
        tables.wait_for_notes("ended", {"before"})

        restart()

        send(client, "count_one", "after")
        tables.wait_for_notes("ended", {"before", "after"}, timeout=30)
        tables.wait_until_empty()
        client.close()
    finally:
        worker.end_all()
        print(worker.log())


def test_a_task_publishes_from_its_pool_child(app: Celery, tables: Tables, start: StartWorker) -> None:
    start("only", "prefork", "-c", "2").wait_until_ready()
    for number in range(5):
        send(app, "first_then", f"n{number}")

    tables.wait_for_notes("ended", {f"after n{number}" for number in range(5)})
    tables.wait_until_empty()


def test_a_worker_that_stops_leaves_nothing_behind(app: Celery, tables: Tables, start: StartWorker) -> None:
    worker = start("only", "prefork", "-c", "1").wait_until_ready()
    send(app, "work", "now", 1)
    tables.wait_for_notes("started", {"now"})
    send_many(app, "count_one", [f"n{number}" for number in range(30)])

    assert worker.stop() == 0

    tables.wait_for_notes("ended", {"now"})
    assert all(message["leased_by"] is None and message["deliveries"] == 0 for message in tables.messages)
    assert tables.rows("SELECT * FROM jobbridge_broker.consumers") == []
    assert tables.queues == {"celery"}


# -- time and order


def test_a_countdown_is_kept_and_costs_the_worker_nothing(
    app: Celery, tables: Tables, start: StartWorker
) -> None:
    start("only", "threads", "-c", "2").wait_until_ready()
    sent_at = datetime.now(UTC)
    send(app, "count_one", "later", countdown=1.2)
    send(app, "count_one", "much later", countdown=3600)
    send(app, "count_one", "now")

    tables.wait_for_notes("ended", {"now", "later"})
    rows = tables.rows("SELECT text, at FROM notes ORDER BY id")
    assert [row["text"] for row in rows] == ["now", "later"]
    on_the_way = rows[0]["at"] - sent_at  # of what had not to wait: long where the machine is busy
    assert timedelta(seconds=1.1) < rows[1]["at"] - sent_at < timedelta(seconds=2.5) + on_the_way
    wait_until(
        lambda: [message["leased_by"] for message in tables.messages] == [None]
    )  # ends are settled in batches


def test_a_worker_takes_what_is_most_important_first(app: Celery, tables: Tables, start: StartWorker) -> None:
    for number, priority in enumerate([0, 9, 5, 0, 9]):
        send(app, "count_one", f"{priority}-{number}", priority=priority)

    start("only", "solo", "--prefetch-multiplier", "1").wait_until_ready()

    tables.wait_until_empty()
    assert tables.notes("ended") == ["9-1", "9-4", "5-2", "0-0", "0-3"]


def test_a_free_slot_does_not_wait_for_half_of_the_window(
    app: Celery, tables: Tables, start: StartWorker
) -> None:
    start("only", "threads", "-c", "4", "--prefetch-multiplier", "1").wait_until_ready()
    for number in range(3):
        send(app, "work", f"long{number}", 30)
    tables.wait_for_notes("started", {"long0", "long1", "long2"})

    for number in range(5):
        send(app, "count_one", f"short{number}")

    tables.wait_for_notes("ended", {f"short{number}" for number in range(5)}, timeout=20)
    assert not [note for note in tables.notes("ended") if note.startswith("long")]


# -- remote control


def test_remote_control_and_events(app: Celery, tables: Tables, start: StartWorker) -> None:
    start("one", "threads", "-c", "2").wait_until_ready()
    start("two", "prefork", "-c", "2", "-Q", "celery,other").wait_until_ready()
    events: list[dict[str, Any]] = []

    pong = celery_command(tables, "inspect", "ping", "-t", "3")
    assert "one@test: OK" in pong
    assert "two@test: OK" in pong

    with app.connection_for_read() as connection:
        receiver = app.events.Receiver(connection, handlers={"*": events.append})
        receiver.queue(connection.default_channel).declare()
        send(app, "work", "watched", 0.3)
        for _ in receiver.itercapture(timeout=10):
            if events[-1]["type"] == "task-succeeded":
                break
    assert {"task-received", "task-started", "task-succeeded"} <= {event["type"] for event in events}

    stats = celery_command(tables, "inspect", "stats", "-t", "5", "-d", "one@test,two@test", "--json")
    assert tables.connection.info.password not in stats
    wait_until(
        lambda: tables.queues == {"celery", "other", "one@test.celery.pidbox", "two@test.celery.pidbox"}
    )


def test_a_waiting_task_is_revoked(app: Celery, tables: Tables, start: StartWorker) -> None:
    # Without prefetching: what the thread pool has got already, Celery does not ask about again.
    start("only", "threads", "-c", "1", "--prefetch-multiplier", "1").wait_until_ready()
    send(app, "work", "long", 3)
    tables.wait_for_notes("started", {"long"})
    task_id = send(app, "count_one", "revoked")
    send(app, "count_one", "kept")
    assert app.control.revoke(task_id, reply=True, limit=1, timeout=2)

    tables.wait_for_notes("ended", {"long", "kept"})
    tables.wait_until_empty()
    assert "revoked" not in tables.notes("ended")
