from __future__ import annotations

import json

from jobbridge.core.envelope import Envelope

MESSAGE = Envelope(
    id="1",
    task="t",
    tenant="acme",
    delivery="d",
    queue="celery",
    headers={"id": "1"},
    arguments=[[1], {"a": 2}, {"chain": None}],
)


def test_it_survives_json() -> None:
    assert Envelope.from_json(json.loads(json.dumps(MESSAGE.to_json()))) == MESSAGE


def test_fields_of_a_later_release_are_ignored() -> None:
    assert Envelope.from_json({**MESSAGE.to_json(), "later": 1}) == MESSAGE


def test_arguments_can_travel_apart() -> None:
    apart = MESSAGE.without_arguments()

    assert apart.arguments == [None, None, {"chain": None}]
    assert apart.with_arguments([1], {"a": 2}) == MESSAGE
