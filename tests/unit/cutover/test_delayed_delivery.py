"""To which queue RabbitMQ's delayed delivery would bring a message."""

from __future__ import annotations

import pytest
from kombu.transport.native_delayed_delivery import calculate_routing_key, level_name

from jobbridge.cutover.sources.delayed_delivery import QUEUES, queue_of, without_delay

ROUTES = {"celery": ["celery"], "reports": ["reports.*", "audit.#"], "all": ["#.everything"]}


def test_the_queues_are_those_that_kombu_declares() -> None:
    assert [level_name(level) for level in range(len(QUEUES))] == list(QUEUES)
    assert len(calculate_routing_key(1, "celery").split(".")) == len(QUEUES) + 1


@pytest.mark.parametrize(
    ("key", "queue"),
    [
        ("celery", "celery"),
        ("reports.monthly", "reports"),
        ("audit", "reports"),
        ("audit.of.everybody", "reports"),
        ("some.celery", "celery"),  # bound by `#.celery`
        ("of.everything", "all"),
        ("reports", None),
        ("reports.monthly.all", None),
        ("others", None),
    ],
)
def test_a_message_goes_where_its_routing_key_leads(key: str, queue: str | None) -> None:
    delayed = calculate_routing_key(100_000, key)

    assert without_delay(delayed) == key
    assert queue_of(delayed, ROUTES) == queue
