"""Exchanges lead to queues: rows, workers and pauses speak of these, on both engines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from celery import chord
from kombu import Exchange, Queue

import jobbridge
from jobbridge import Celery
from jobbridge.core.keys import Engine
from jobbridge.errors import UnsupportedOption
from jobbridge.settings import load_settings
from jobbridge.store.workers.queue_pauses import QueuePauses
from tests.parity.conftest import World
from tests.parity.routing_app import make_routing_app
from tests.support import wait_until

TIMEOUT = 30


@pytest.fixture
def app(own_world: World) -> Iterator[Celery]:
    app = make_routing_app(settings=load_settings(own_world.environment))
    app.finalize()
    own_world.app = app
    yield app
    app.database.close()
    app.close()


def _work(world: World, *arguments: str) -> None:
    world.starters[world.engine]("tests.parity.routing_app", *arguments, **world.environment)


def test_exchanges_and_routing_keys_lead_to_queues(own_world: World, app: Celery) -> None:
    add = app.tasks["parity.add"]
    sent = {
        "route": (app.tasks["parity.who"].delay(), "letters"),
        "topic": (add.apply_async([1, 1], exchange="post", routing_key="mail.now.or.never"), "letters"),
        "fanout": (add.apply_async([2, 2], exchange="loud", routing_key="any"), "shouts"),
        "direct": (add.delay(3, 3), "celery"),
    }
    assert {name: own_world.row(each.id)["queue"] for name, (each, _) in sent.items()} == {
        name: queue for name, (_, queue) in sent.items()
    }

    _work(own_world, "-P", "prefork", "-c", "1")

    seen = {name: each.get(timeout=TIMEOUT) for name, (each, _) in sent.items()}
    assert (seen["topic"], seen["fanout"], seen["direct"]) == (2, 4, 6)
    assert seen["route"]["queue"] == "mail.send"  # Celery's request tells the routing key
    for each, queue in sent.values():
        assert own_world.wait_for_status(each.id, "completed")["queue"] == queue


def test_a_paused_topic_queue_holds_what_was_taken_ahead(own_world: World, app: Celery) -> None:
    options = {"exchange": "post", "routing_key": "mail.slow"}
    running = app.tasks["parity.hold"].apply_async(**options)
    _work(own_world, "-P", "threads", "-c", "1")
    wait_until(lambda: own_world.lines(running, "hold.pids"), timeout=TIMEOUT)
    ahead = app.tasks["parity.add"].apply_async([1, 1], **options)
    wait_until(lambda: own_world.row(ahead.id)["status"] == "queued")

    pauses = QueuePauses(app.database)
    assert pauses.pause("letters")
    if own_world.engine is Engine.TEMPORAL:  # on CE a job that was taken ahead is refused when it would start

        def has_let_go() -> bool:
            answers: Any = app.control.inspect(timeout=1.0, limit=1).active_queues()
            return bool(answers) and all(
                "letters" not in {queue["name"] for queue in queues} for queues in answers.values()
            )

        wait_until(has_let_go, timeout=TIMEOUT)
    own_world.release(running)
    own_world.wait_for_status(running.id, "completed")
    other = app.tasks["parity.add"].delay(2, 2)
    assert other.get(timeout=TIMEOUT) == 4
    assert own_world.row(ahead.id)["attempt"] == 0

    assert pauses.resume("letters")
    assert ahead.get(timeout=TIMEOUT) == 2


def test_a_broadcast_runs_on_every_worker_or_is_refused(own_world: World, app: Celery) -> None:
    add = app.tasks["parity.add"]
    if own_world.engine is Engine.TEMPORAL:
        with pytest.raises(UnsupportedOption, match="many workers"):
            add.apply_async([1, 1], queue="everyone")
        assert own_world.rows() == []
        return
    for name in ("one", "two"):
        _work(own_world, "-P", "threads", "-n", f"{name}@here")

    sent = add.apply_async([1, 1], queue="everyone")

    wait_until(lambda: own_world.lines(sent, "add") == ["1+1", "1+1"], timeout=TIMEOUT)
    assert sent.get(timeout=TIMEOUT) == 2
    assert own_world.rows() == []


def test_a_broadcast_cannot_be_a_part_of_a_chord(own_world: World, app: Celery) -> None:
    add, total = app.tasks["parity.add"], app.tasks["parity.total"]

    with pytest.raises(UnsupportedOption, match="many workers"):
        chord([add.s(1, 1), add.s(1, 1).set(queue="everyone")], total.s()).delay()

    assert own_world.rows() == []
    assert own_world.looking.rows("SELECT FROM jobbridge_broker.messages", []) == []


def test_what_leads_to_no_queue_is_refused_when_it_is_sent(own_world: World, app: Celery) -> None:
    add = app.tasks["parity.add"]
    nowhere = [
        {"exchange": "post", "routing_key": "parcel.big"},
        {"exchange": "nobodys", "routing_key": "celery"},
    ]
    for options in nowhere:
        with pytest.raises(UnsupportedOption, match=r"leads to no queue"):
            add.apply_async([1, 1], **options)
        with pytest.raises(UnsupportedOption, match=r"leads to no queue"), jobbridge.bulk():
            add.apply_async([1, 1], **options)
        with (
            psycopg.connect(own_world.database_url) as own,
            jobbridge.transaction(own),
            pytest.raises(UnsupportedOption, match=r"leads to no queue"),
        ):
            add.apply_async([1, 1], **options)
    assert own_world.rows() == []
    assert own_world.looking.rows("SELECT FROM jobbridge_broker.messages", []) == []


def test_a_queue_that_was_deleted_since_is_declared_anew(own_world: World, app: Celery) -> None:
    add = app.tasks["parity.add"]
    options: dict[str, Any] = {"exchange": "post", "routing_key": "mail.now"}
    first = add.apply_async([1, 1], **options)
    own_world.looking.rows("DELETE FROM jobbridge_broker.bindings RETURNING 1", [])
    own_world.looking.rows("DELETE FROM jobbridge_broker.queues RETURNING 1", [])

    second = add.apply_async([2, 2], **options)

    _work(own_world, "-P", "prefork", "-c", "1")
    assert [each.get(timeout=TIMEOUT) for each in (first, second)] == [2, 4]


def test_a_queue_of_the_caller_gets_what_is_sent_to_it(own_world: World, app: Celery) -> None:
    own = Queue("own", Exchange("post", type="topic"), routing_key="own.#")

    sent = app.tasks["parity.add"].apply_async([1, 1], queue=own, routing_key="own.thing")

    assert own_world.row(sent.id)["queue"] == "own"
