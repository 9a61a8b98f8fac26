"""RabbitMQ keeps what is not due, if Celery has quorum queues: that is taken over from where it waits, with its ETA."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import amqp
import pytest
from celery import Celery
from kombu import Exchange, Queue
from kombu.transport import native_delayed_delivery as delayed_delivery

from tests.integration.cutover.conftest import TIMEOUT, Sides
from tests.integration.cutover.old_world import old_app
from tests.rabbitmq_server import run_rabbitmq
from tests.support import wait_until

LATER = datetime.now(UTC) + timedelta(hours=5)


@pytest.fixture
def rabbitmq_url(tmp_path: Path) -> Iterator[str]:
    with run_rabbitmq(tmp_path) as url:
        yield url


def quorum(name: str) -> Queue:
    topic = Exchange(name, type="topic")
    return Queue(name, topic, routing_key=name, queue_arguments={"x-queue-type": "quorum"})


@contextmanager
def old_project(url: str, *names: str) -> Iterator[Celery]:
    app = old_app(url, task_queues=[quorum(name) for name in names], task_default_queue=names[0])
    app.conf.broker_transport_options = {"confirm_publish": True}
    with app.connection_for_write() as connection:  # as its worker does when it starts
        delayed_delivery.declare_native_delayed_delivery_exchanges_and_queues(connection, "quorum")
        for queue in app.amqp.queues.values():
            queue(connection.channel()).declare()
            delayed_delivery.bind_queue_to_native_delayed_delivery_exchange(connection, queue)
    yield app
    app.close()


def send(app: Celery, name: str, **options: Any) -> str:
    return str(app.tasks["cutover.run"].apply_async((name,), **options).id)


def waiting(url: str, *queues: str) -> int:
    """Count what RabbitMQ has; what it has just moved, or was given back, takes a moment."""
    with amqp.Connection(url.rpartition("@")[2].rstrip("/")) as connection:
        channel = connection.channel()
        return sum(int(channel.queue_declare(queue, passive=True).message_count) for queue in queues)


DELAYED = tuple(delayed_delivery.level_name(level) for level in range(28))


@pytest.mark.long
def test_what_rabbitmq_keeps_until_it_is_due_is_taken_over(sides: Sides, rabbitmq_url: str) -> None:
    with old_project(rabbitmq_url, "celery", "reports") as app:
        plain = [send(app, f"plain-{number}") for number in range(3)]
        later = [send(app, f"later-{number}", eta=LATER) for number in range(120)]
        reports = send(app, "report", queue="reports", countdown=7200)
        soon = [send(app, f"soon-{number}", countdown=number / 4) for number in range(4, 60)]
    with old_project(rabbitmq_url, "others") as app:
        send(app, "of others", countdown=3600)
    known = {*plain, *later, reports, *soon}
    wait_until(lambda: waiting(rabbitmq_url, *DELAYED, "celery") == len(known) + 1, timeout=TIMEOUT)
    assert waiting(rabbitmq_url, *DELAYED) > len(later)

    planned = sides.moved("--from", rabbitmq_url, "--queues", "celery,reports", "--dry-run")
    assert f"{len(known)} job(s) went" in planned
    wait_until(lambda: waiting(rabbitmq_url, *DELAYED, "celery") == len(known) + 1, timeout=TIMEOUT)

    sides.moved("--from", rabbitmq_url, "--queues", "celery,reports")

    assert {row["task_id"] for row in sides.rows()} == known
    # Celery makes a countdown of it, and of that an ETA again.
    assert {abs(sides.row(task_id)["run_at"] - LATER) < timedelta(minutes=1) for task_id in later} == {True}
    assert sides.row(reports)["queue"] == "reports"
    assert sides.messages() == len(known)
    wait_until(lambda: waiting(rabbitmq_url, *DELAYED, "celery", "reports") == 1, timeout=TIMEOUT)

    told = sides.moved("--from", rabbitmq_url, code=1)
    assert "the routing key 'others', which leads to none of these queues" in told

    sides.worker("celery")
    for task_id in (*plain, *soon):
        sides.wait_for_status(task_id, "completed")
    assert set(sides.ran().values()) == {1}
    assert len(sides.ran()) == len(plain) + len(soon)


@pytest.mark.long
def test_a_take_over_that_is_killed_takes_what_was_delayed_once(sides: Sides, rabbitmq_url: str) -> None:
    with old_project(rabbitmq_url, "celery") as app:
        sent = {send(app, f"later-{number}", eta=LATER) for number in range(250)}
    wait_until(lambda: waiting(rabbitmq_url, *DELAYED) == len(sent), timeout=TIMEOUT)

    for point in (
        "take_over:store_messages:2",
        "take_over:_TakeOver._store:1:after",
        "sources.amqp:AmqpSource.remove:2",
    ):
        killed = sides.cutover("--from", rabbitmq_url, DIES_AT=f"jobbridge.cutover.{point}")
        wait_until(lambda dead=killed: not dead.is_running, timeout=TIMEOUT)
        assert killed.exit_code == 137, killed.log()
    sides.moved("--from", rabbitmq_url)

    assert {row["task_id"] for row in sides.rows()} == sent
    assert sides.messages() == len(sent)
    assert waiting(rabbitmq_url, *DELAYED) == 0
