"""With keys and a broker of others: what lies there and in the rows is sealed, whichever side it comes from."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import celery
import pytest
from celery import chain, chord

from jobbridge import Celery
from jobbridge.core.keys import job_id_for
from jobbridge.cutover.take_over import take_over
from jobbridge.settings import load_settings
from tests.conftest import StartWorker
from tests.parity import secret_tasks  # noqa: F401  (its tasks are the app's)
from tests.parity.tasks import make_app
from tests.rabbitmq_server import run_rabbitmq
from tests.redis_server import run_redis
from tests.support import Looking, wait_until

SECRET = "the-patient-is-called-Ekaterina"
TIMEOUT = 60
#: Erlang takes half a minute to begin.
BROKERS = [
    pytest.param(run_redis, id="redis"),
    pytest.param(run_rabbitmq, id="rabbitmq", marks=pytest.mark.long),
]


def make_key(name: str) -> str:
    return f"{name}:{base64.b64encode(os.urandom(32)).decode()}"


@dataclass
class Elsewhere:
    """An app whose messages are at another broker.

    Attributes:
        plain: A client without our books and keys, at the same broker.
    """

    app: Celery
    plain: celery.Celery
    environment: dict[str, str]
    looking: Looking

    def messages(self) -> list[Any]:
        """Take all that waits at the broker, raw."""
        taken = []
        with (
            self.app.connection_for_read() as connection,
            connection.SimpleQueue("celery") as queue,
            suppress(queue.Empty),
        ):
            while True:
                taken.append(message := queue.get(timeout=2))
                message.ack()
        return taken

    def found(self) -> list[str]:
        """Name the tables that have the secret."""
        tables = self.looking.rows(
            "SELECT format('%%I.%%I', schemaname, tablename) AS name FROM pg_tables "
            "WHERE schemaname IN ('public', 'jobbridge_broker')"
        )
        forms = f"{SECRET}|{SECRET.encode().hex()}"
        looks = "SELECT 1 FROM {} AS held WHERE held::text ~ %s LIMIT 1"
        return [each["name"] for each in tables if self.looking.rows(looks.format(each["name"]), [forms])]


@pytest.fixture(params=BROKERS)
def elsewhere(request: pytest.FixtureRequest, database_url: str, tmp_path: Path) -> Iterator[Elsewhere]:
    (tmp_path / "notes").mkdir()
    with request.param(tmp_path) as broker, closing(Looking(database_url)) as looking:
        environment = {
            "DATABASE_URL": database_url,
            "PARITY_FOLDER": str(tmp_path / "notes"),
            "CELERY_BROKER_URL": broker,
            "JOBBRIDGE_ENCRYPTION_KEYS": make_key("one"),
        }
        app = make_app(settings=load_settings(environment), broker=broker)
        app.finalize()
        plain = celery.Celery("plain", broker=broker)
        yield Elsewhere(app, plain, environment, looking)
        plain.close()
        app.close()
        app.database.close()


def test_rows_and_messages_are_sealed_at_a_broker_of_others(
    elsewhere: Elsewhere, celery_worker: StartWorker
) -> None:
    app = elsewhere.app
    echo, raises = app.tasks["parity.secret_echo"], app.tasks["parity.secret_raises_first"]
    join = app.tasks["parity.secret_join"]
    for serializer in ("json", "pickle"):
        echo.apply_async((SECRET,), {"more": SECRET}, serializer=serializer, link=echo.si(SECRET))
    chain(echo.s(SECRET), echo.si(SECRET)).delay()
    raw = elsewhere.messages()
    assert len(raw) == 3
    for message in raw:
        assert message.content_type == "application/x-jobbridge-encrypted"
        whole = repr(message.body) + repr(message.headers) + repr(message.properties)
        assert SECRET not in whole
        assert base64.b64encode(SECRET.encode()).decode()[:-4] not in whole

    celery_worker("tests.parity.app", "-P", "solo", **elsewhere.environment)
    sent, again = echo.delay(SECRET), raises.delay(SECRET)
    both = chord([echo.s(SECRET), echo.s(SECRET)], join.s(SECRET)).delay()

    assert sent.get(timeout=TIMEOUT) == {"echo": SECRET}
    assert again.get(timeout=TIMEOUT) == SECRET
    assert both.get(timeout=TIMEOUT) == SECRET * 3
    assert elsewhere.found() == []
    # And the other way: what a client sends that has no keys is run, and its row is sealed.
    foreign = elsewhere.plain.send_task("parity.secret_echo", (SECRET,))
    row = wait_until(lambda: app.jobs.find(job_id_for(foreign.id)), timeout=TIMEOUT)
    wait_until(lambda: app.AsyncResult(foreign.id).state == "SUCCESS", timeout=TIMEOUT)
    assert app.AsyncResult(foreign.id).get() == {"echo": SECRET}
    assert row.type == "parity.secret_echo"
    assert elsewhere.found() == []


def test_what_a_worker_has_no_key_for_is_told_by_its_row(
    elsewhere: Elsewhere, celery_worker: StartWorker
) -> None:
    sent = elsewhere.app.tasks["parity.secret_echo"].delay(SECRET)
    one, two = elsewhere.environment["JOBBRIDGE_ENCRYPTION_KEYS"], make_key("two")
    other = {**elsewhere.environment, "JOBBRIDGE_ENCRYPTION_KEYS": two}
    both = make_app(settings=load_settings({**other, "JOBBRIDGE_ENCRYPTION_KEYS": f"{two},{one}"}))

    celery_worker("tests.parity.app", "-P", "solo", **other)

    def failed() -> Any:
        row = both.jobs.find(job_id_for(sent.id))
        assert row is not None
        assert row.status == "failed", row.status
        return row

    assert "'one'" in wait_until(failed, timeout=TIMEOUT).error
    both.close()
    both.database.close()


def test_what_is_sealed_or_large_there_is_taken_over(
    elsewhere: Elsewhere, celery_worker: StartWorker
) -> None:
    echo, much = elsewhere.app.tasks["parity.secret_echo"], SECRET + "x" * 300_000
    sent = {name: echo.delay(secret) for name, secret in {"small": SECRET, "large": much}.items()}
    environment = {
        name: value for name, value in elsewhere.environment.items() if name != "CELERY_BROKER_URL"
    }
    here = make_app(settings=load_settings(environment))
    here.finalize()

    report = take_over(here, elsewhere.environment["CELERY_BROKER_URL"], queues=["celery"])

    assert (report.problems, report.unreadable) == ([], {})
    assert elsewhere.messages() == []
    assert elsewhere.found() == []
    celery_worker("tests.parity.app", "-P", "solo", **environment)
    assert sent["small"].get(timeout=TIMEOUT) == {"echo": SECRET}
    assert sent["large"].get(timeout=TIMEOUT) == {"echo": much}
    here.close()
    here.database.close()
