"""The way to Temporal: reachable or not, once or twice; and the relay."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from celery import group

from jobbridge.core.envelope import Envelope
from jobbridge.dev.process import free_port
from jobbridge.dev.temporal import TemporalServer
from jobbridge.errors import ConfigurationError, EngineUnavailable
from jobbridge.settings import load_settings
from jobbridge.temporal.deliver.delivery import TemporalDelivery
from jobbridge.temporal.deliver.relay import Relay
from jobbridge.temporal.wire.access import target_of
from tests.forked import run_python
from tests.integration.temporal.conftest import TIMEOUT, TemporalWorld
from tests.integration.temporal.tasks import make_app
from tests.support import clean_environment, wait_until


@pytest.fixture
def away(own_world: TemporalWorld) -> Iterator[Any]:
    """An app whose Temporal is not there, and whose jobs wait for it."""
    environment = {
        **own_world.environment,
        "TEMPORAL_ADDRESS": f"127.0.0.1:{free_port()}",
        "JOB_RUNNER_FALLBACK_TO_CELERY": "false",
    }
    settings = load_settings(environment)
    app = make_app(settings=settings)
    app.finalize()
    yield app
    app.delivery("temporal").client.close()
    app.database.close()


def _loops() -> int:
    return sum(thread.name == "jobbridge-temporal" for thread in threading.enumerate())


def _envelope(**fields: Any) -> Envelope:
    task_id = str(uuid.uuid4())
    known: dict[str, Any] = {
        "id": task_id,
        "task": "parity.add",
        "tenant": "acme",
        "delivery": str(uuid.uuid4()),
        "queue": f"nobody-{task_id}",
        "headers": {"task": "parity.add", "id": task_id},
        "arguments": [[1, 2], {}, {}],
    }
    return Envelope(**{**known, **fields})


def test_delivering_twice_starts_once(own_world: TemporalWorld) -> None:
    delivery = TemporalDelivery(own_world.app.settings, own_world.app)
    envelope = _envelope()

    first, second = delivery.deliver(envelope), delivery.deliver(envelope)

    assert first.external_id == envelope.id
    assert first.external_run_id == second.external_run_id
    assert delivery.is_running(envelope.id)
    delivery.client.close()


def test_another_message_of_a_running_job_waits_for_its_workflow(own_world: TemporalWorld) -> None:
    delivery = TemporalDelivery(own_world.app.settings, own_world.app)
    envelope = _envelope()
    delivery.deliver(envelope)

    with pytest.raises(EngineUnavailable) as caught:
        delivery.deliver(_envelope(id=envelope.id))

    assert caught.value.certainly_not_started is False
    delivery.client.close()


def test_cancelling_what_does_not_run_says_so(own_world: TemporalWorld) -> None:
    delivery = TemporalDelivery(own_world.app.settings, own_world.app)

    assert delivery.cancel(str(uuid.uuid4()), reason="no", cancelled_by=None) is False
    delivery.client.close()


def test_an_unreachable_server_is_an_error_that_says_what_to_do(away: Any) -> None:
    with pytest.raises(EngineUnavailable, match="cannot be reached") as caught:
        away.delivery("temporal").deliver(_envelope())

    assert caught.value.certainly_not_started is True
    assert "TEMPORAL_ADDRESS" in caught.value.hint


def test_a_failed_connection_is_remembered_and_shared(away: Any) -> None:
    delivery = away.delivery("temporal")

    def fails(_: int) -> float:
        began = time.monotonic()
        with pytest.raises(EngineUnavailable):
            delivery.deliver(_envelope())
        return time.monotonic() - began

    before = _loops()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(fails, range(4)))
    assert fails(0) < 0.1
    assert _loops() - before == 1


def test_a_job_sent_while_temporal_is_away_waits_for_the_relay(
    own_world: TemporalWorld, away: Any, temporal: TemporalServer
) -> None:
    result = away.tasks["parity.add"].delay(1, 2)
    assert own_world.row(result.id)["status"] == "pending"

    delivery = TemporalDelivery(own_world.app.settings, own_world.app)
    with ThreadPoolExecutor(2) as executor:
        relays = [
            Relay(own_world.app, delivery, is_held=lambda _: False, executor=executor) for _ in range(2)
        ]
        delivered = list(executor.map(lambda relay: relay.sweep(timedelta()), relays))

    assert sum(delivered) == 1
    row = own_world.row(result.id)
    assert (row["status"], row["external_id"]) == ("queued", result.id)
    assert own_world.status(result.id) == "RUNNING"
    delivery.client.close()


def test_a_group_is_written_at_once_and_started_many_at_a_time(own_world: TemporalWorld) -> None:
    results = group(own_world.task("parity.add").s(number, 1) for number in range(30)).delay().results
    assert {own_world.row(result.id)["status"] for result in results} == {"pending"}
    delivery = TemporalDelivery(own_world.app.settings, own_world.app)
    early = own_world.row(results[3].id)
    delivery.deliver(
        Envelope.from_json(json.loads(early["message"]))
    )  # by a relay that died before it said so

    delivered = Relay(own_world.app, delivery, is_held=lambda _: False).sweep(timedelta())

    assert delivered == 30
    rows = [own_world.row(result.id) for result in results]
    assert {row["status"] for row in rows} == {"queued"}
    assert [row["external_id"] for row in rows] == [result.id for result in results]
    assert {own_world.status(result.id) for result in results} == {"RUNNING"}
    delivery.client.close()


def test_the_relay_is_woken_only_for_what_it_is_to_deliver(own_world: TemporalWorld) -> None:
    """Else each worker's asks for every job, and starts those a second time that their sender is about to start."""
    url = own_world.environment["DATABASE_URL"]
    with psycopg.connect(url, autocommit=True) as listener, psycopg.connect(url, autocommit=True) as caller:
        listener.execute("LISTEN jobbridge_relay")
        own_world.task("parity.add").delay(1, 1)
        with own_world.app.enqueue_on(caller):
            own_world.task("parity.add").delay(1, 1)

        (first,) = listener.notifies(timeout=TIMEOUT, stop_after=1)

        assert first.pid == caller.info.backend_pid


def test_the_relay_leaves_what_a_running_workflow_will_take(own_world: TemporalWorld) -> None:
    result = own_world.task("parity.add").delay(1, 2)
    delivery = TemporalDelivery(own_world.app.settings, own_world.app)
    with ThreadPoolExecutor(1) as executor:
        relay = Relay(
            own_world.app, delivery, is_held=lambda task_id: task_id == result.id, executor=executor
        )

        assert relay.sweep(timedelta()) == 0
    delivery.client.close()


def test_wrong_tls_settings_are_named(own_world: TemporalWorld, tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_text("no certificate")
    settings = load_settings(
        {**own_world.environment, "TEMPORAL_TLS_CLIENT_CERT_PATH": str(tmp_path / "cert.pem")}
    )

    delivery = TemporalDelivery(settings, own_world.app)
    with pytest.raises(ConfigurationError, match="TEMPORAL_TLS_CLIENT_KEY_PATH"):
        delivery.deliver(_envelope())
    delivery.client.close()


def test_settings_that_cannot_work_are_found_before_a_job_is_recorded(
    own_world: TemporalWorld, tmp_path: Path
) -> None:
    (garbage := tmp_path / "garbage.pem").write_text("no certificate")
    cert_name, key_name = "TEMPORAL_TLS_CLIENT_CERT_PATH", "TEMPORAL_TLS_CLIENT_KEY_PATH"
    wrong: list[dict[str, Any]] = [
        {"TEMPORAL_NAMESPACE": "elsewhere"},
        {"TEMPORAL_NAMESPACE": "a\x00b"},
        {"TEMPORAL_API_KEY": "a\nb"},
        {"TEMPORAL_TLS_SERVER_CA_CERT_PATH": tmp_path / "nothing"},
        {"TEMPORAL_TLS_SERVER_CA_CERT_PATH": tmp_path},
        {"TEMPORAL_TLS_SERVER_CA_CERT_PATH": garbage},
        {cert_name: garbage},
        {key_name: garbage},
        {cert_name: garbage, key_name: garbage},
        *(
            {"TEMPORAL_ADDRESS": address}
            for address in ("::::", "host:port", "http://x", "a:1,b:2", "h:99999")
        ),
    ]
    accepted = []
    for settings in wrong:
        told = {name: str(value) for name, value in settings.items()}
        app = make_app(settings=load_settings({**own_world.environment, **told}))
        try:
            with pytest.raises(ConfigurationError, match="TEMPORAL_"):
                app.tasks["parity.add"].delay(1, 2)
            with app.database.connection() as mine, mine.transaction(), app.enqueue_on(mine):
                if settings != wrong[0]:  # only the server knows that
                    with pytest.raises(ConfigurationError, match="TEMPORAL_"):
                        app.tasks["parity.add"].delay(1, 2)
        except pytest.fail.Exception:
            accepted.append(settings)
        finally:
            app.close()
    assert accepted == []
    assert own_world.rows("true") == []


def test_an_address_without_a_port_means_7233() -> None:
    assert target_of("temporal.example") == "temporal.example:7233"
    assert target_of("[::1]") == "[::1]:7233"
    assert target_of(" h:1234\n") == "h:1234"


def test_a_job_that_is_recorded_was_sent_whatever_is_wrong_then(
    own_world: TemporalWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who was told that it failed would send it again: the relay has it already."""
    app = own_world.app
    app.tasks["parity.add"].delay(1, 2)
    with app.database.connection() as connection:
        connection.execute(
            "CREATE FUNCTION public.trouble() RETURNS trigger LANGUAGE plpgsql AS"
            " $$BEGIN RAISE EXCEPTION 'for a test' USING ERRCODE = '23514'; END$$"
        )
        connection.execute(
            "CREATE TRIGGER trouble BEFORE UPDATE ON jobs FOR EACH ROW EXECUTE FUNCTION public.trouble()"
        )

    sent = app.tasks["parity.add"].delay(1, 2)

    assert own_world.row(sent.id)["status"] == "pending"


_SENDS_MANY = """
import os, sys
from jobbridge.temporal.deliver import acceptances
from tests.integration.temporal.tasks import app
acceptances.SOON, acceptances.GATHER = 10.0, 0.3  # the machine may be slow
add = app.tasks["parity.add"]
for number in range(60):
    add.delay(number, 1)
if sys.argv[1:] == ["dies"]:
    os._exit(0)
"""


def test_that_many_were_accepted_is_written_together_and_before_their_sender_ends(
    own_world: TemporalWorld,
) -> None:
    ended = run_python(["-c", _SENDS_MANY], env=clean_environment(own_world.environment))

    assert (ended.returncode, ended.stderr) == (0, "")
    told = own_world.looking.rows(
        "SELECT status, count(*) AS jobs, count(DISTINCT xmin::text) AS commits FROM jobs GROUP BY status"
    )
    (queued,) = told
    assert (queued["status"], queued["jobs"]) == ("queued", 60)
    assert queued["commits"] < 45  # the first ones are written one by one; of the others several at a time
    wait_until(lambda: len(own_world.rows("external_run_id IS NOT NULL")) == 60)


def test_what_a_dead_sender_has_not_told_runs_once_and_the_relay_tells(own_world: TemporalWorld) -> None:
    ended = run_python(["-c", _SENDS_MANY, "dies"], env=clean_environment(own_world.environment))

    assert ended.returncode == 0
    assert own_world.rows("status = 'pending'")
    own_world.worker("-c", "2")
    wait_until(lambda: len(own_world.rows("status = 'completed'")) == 60, timeout=TIMEOUT)
    assert {row["attempt"] for row in own_world.rows()} == {1}
    assert len({row["external_run_id"] for row in own_world.rows()}) == 60
    wait_until(lambda: own_world.rows("undelivered_since IS NOT NULL") == [])
