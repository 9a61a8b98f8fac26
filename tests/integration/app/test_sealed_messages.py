"""Messages on brokers of others, sealed: what is there, what a worker makes of it, and what goes back."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from typing import Any

import pytest

from jobbridge import Celery
from jobbridge.app.publish.message.encryption import HEADER, open_message
from jobbridge.errors import EncryptionError
from jobbridge.settings import load_settings
from tests.parity.tasks import make_app

SECRET = "the-patient-is-called-Ekaterina"


@pytest.fixture
def app(database_url: str) -> Iterator[Celery]:
    key = f"one:{base64.b64encode(os.urandom(32)).decode()}"
    settings = load_settings({"DATABASE_URL": database_url, "JOBBRIDGE_ENCRYPTION_KEYS": key})
    app = make_app(settings=settings, broker_url="memory://")
    app.finalize()
    yield app
    app.close()


def take(app: Celery) -> Any:
    with app.connection_for_read() as connection, connection.SimpleQueue("celery") as queue:
        message = queue.get(timeout=5)
        message.ack()
        return message


@pytest.mark.parametrize("serializer", ["json", "pickle"])
def test_a_message_goes_back_to_another_broker_as_it_came(app: Celery, serializer: str) -> None:
    for track in (True, False):
        sent = app.tasks["parity.total"].apply_async(([SECRET],), serializer=serializer, track=track)
        message = take(app)
        raw = message.serializable()

        open_message(app, message)

        assert SECRET not in repr(raw) + repr(message.headers)
        assert raw["headers"][HEADER] == [
            f"application/{'json' if serializer == 'json' else 'x-python-serialize'}",
            "utf-8" if serializer == "json" else "binary",
        ]
        message.accept = {"application/json", "application/x-python-serialize"}
        assert list(message.decode()[0][0]) == [SECRET]
        assert message.headers["id"] == sent.id
        assert message.serializable() == raw


def test_what_is_sealed_as_json_is_not_read_as_a_pickle_nor_for_another_task(app: Celery) -> None:
    for name, value in {
        HEADER: ["application/x-python-serialize", "binary"],
        "task": "parity.add",
        "id": "another",
    }.items():
        app.tasks["parity.total"].delay([SECRET])
        message = take(app)
        message.headers[name] = value

        with pytest.raises(EncryptionError, match="another place"):
            open_message(app, message)
