"""Topic patterns, queue arguments, notification channels, and how a message is taken apart."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jobbridge.broker.publishing import parameters_of
from jobbridge.broker.routing import QueueArguments, notification_channel, topic_pattern


@pytest.mark.parametrize(
    ("binding_key", "routing_key", "fits"),
    [
        ("#", "", True),
        ("#", "a.b.c", True),
        ("worker.#", "worker", True),
        ("worker.#", "worker.online", True),
        ("worker.#", "worker.a.b", True),
        ("worker.#", "workers.a", False),
        ("#.error", "error", True),
        ("#.error", "a.b.error", True),
        ("#.error", "terror", False),
        ("a.#.z", "a.z", True),
        ("a.#.z", "a.b.c.z", True),
        ("a.#.z", "az", False),
        ("*", "a", True),
        ("*", "a.b", False),
        ("*", "", False),
        ("a.*.c", "a.b.c", True),
        ("a.*.c", "a.c", False),
        ("a+b", "a+b", True),
        ("a+b", "aab", False),
        ("a.b", "axb", False),
        ("grün.*", "grün.x", True),
    ],
)
def test_topics(binding_key: str, routing_key: str, fits: bool) -> None:
    assert bool(re.match(topic_pattern(binding_key), f".{routing_key}")) is fits


def test_a_channel_name_fits_an_identifier_whatever_the_queue_is_called() -> None:
    names = {notification_channel(queue) for queue in ("celery", "x" * 400, 'a"b', "ü;DROP", "")}

    assert len(names) == 5
    assert all(re.fullmatch(r"jb_[0-9a-f]{40}", name) for name in names)


def test_queue_arguments() -> None:
    asked = QueueArguments.of({"x-expires": 10_000, "x-message-ttl": 500, "x-other": 1})

    assert asked == QueueArguments(expires=timedelta(seconds=10), message_ttl=timedelta(seconds=0.5))
    assert QueueArguments.of(None) == QueueArguments(expires=None, message_ttl=None)


def message(headers: dict[str, Any] | None = None, **properties: Any) -> dict[str, Any]:
    return {"body": "x", "headers": headers or {}, "properties": properties}


@pytest.mark.parametrize(("given", "stored"), [(3, 3), (99, 9), (-1, 0), (None, 0), ("7", 7), ("high", 0)])
def test_priority_is_between_0_and_9(given: Any, stored: int) -> None:
    assert parameters_of(message(priority=given), "", "q")["message_priority"] == stored


@pytest.mark.parametrize(
    ("eta", "due_at"),
    [
        ("2026-01-02T03:04:05+02:00", datetime(2026, 1, 2, 1, 4, 5, tzinfo=UTC)),
        ("2026-01-02T03:04:05", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        (None, None),
        ("soon", None),
    ],
)
def test_eta_is_when_the_message_is_due(eta: str | None, due_at: datetime | None) -> None:
    assert parameters_of(message({"eta": eta}), "", "q")["due_at"] == due_at


def test_expiration_is_milliseconds_and_the_expires_header_an_instant() -> None:
    parameters = parameters_of(message({"expires": "2026-01-02T00:00:00+00:00"}, expiration="1500"), "", "q")

    assert parameters["ttl"] == timedelta(seconds=1.5)
    assert parameters["message_expires_at"] == datetime(2026, 1, 2, tzinfo=UTC)


def test_the_expires_header_of_remote_control_is_not_ours() -> None:
    assert parameters_of(message({"expires": 1_700_000_000.5}), "", "q")["message_expires_at"] is None
