"""Temporal away, silent, and back: no job is lost, none runs twice, and each tells where it ran."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest

from jobbridge import Celery, Outcome
from jobbridge.core.keys import Engine
from jobbridge.dev.process import free_port
from jobbridge.dev.temporal import run_temporal
from jobbridge.settings import load_settings
from jobbridge.temporal.wire import client as temporal_client
from tests.forked import run_python
from tests.parity.conftest import World
from tests.parity.tasks import make_app
from tests.proxy import Proxy
from tests.support import clean_environment, wait_until

TIMEOUT = 30
MakeApp = Callable[..., Celery]


@pytest.fixture
def engine() -> Engine:
    return Engine.TEMPORAL


@pytest.fixture
def make(own_world: World) -> Iterator[MakeApp]:
    """Makes apps of this world with other settings."""
    with ExitStack() as opened:

        def make_one(**settings: str) -> Celery:
            app = make_app(settings=load_settings({**own_world.environment, **settings}))
            app.finalize()
            opened.callback(app.close)
            return app

        yield make_one


@pytest.fixture
def silent_address() -> Iterator[str]:
    """Accepts connections, and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def fallbacks(world: World, task_id: str) -> list[dict[str, Any]]:
    return [step for step in world.details(task_id) if step["step_name"] == "fallback"]


def messages(world: World) -> int:
    with psycopg.connect(world.database_url) as connection:
        [(count,)] = connection.execute("SELECT count(*) FROM jobbridge_broker.messages").fetchall()
        return int(count)


def test_a_job_that_temporal_cannot_take_runs_on_postgres_and_says_so(
    own_world: World, make: MakeApp, caplog: pytest.LogCaptureFixture
) -> None:
    away = make(TEMPORAL_ADDRESS="127.0.0.1:1")

    first = away.tasks["parity.add"].delay(1, 2)
    second = away.tasks["parity.add"].apply_async([3, 4], engine="temporal")

    own_world.worker(engine=Engine.CELERY)
    assert [result.get(timeout=TIMEOUT) for result in (first, second)] == [3, 7]
    for result in (first, second):
        row, (step,) = own_world.row(result.id), fallbacks(own_world, result.id)
        assert (row["runner_type"], row["status"], row["attempt"], row["message"]) == (
            "celery",
            "completed",
            1,
            None,
        )
        assert (step["status"], step["metadata"]["from"], step["metadata"]["to"]) == (
            "completed",
            "temporal",
            "celery",
        )
        assert "127.0.0.1:1 cannot be reached" in step["metadata"]["reason"]
        assert result.job.outcome is Outcome.CREATED
    assert [record.message for record in caplog.records].count("job.fell_back") == 2
    assert {row.key.job_id for row in own_world.app.jobs.fallen_back()} == {
        row["job_id"] for row in own_world.rows()
    }


def test_the_doctor_names_jobs_that_fell_back(own_world: World, make: MakeApp) -> None:
    away = make(TEMPORAL_ADDRESS="127.0.0.1:1")
    result = away.tasks["parity.add"].delay(1, 2)
    command = ["-m", "jobbridge.cli", "doctor", "-A", "tests.parity.app", "--json"]

    done = run_python(command, env=clean_environment(own_world.environment))

    assert done.returncode == 1
    [check] = [check for check in json.loads(done.stdout)["checks"] if check["name"] == "fallback"]
    assert check["is_good"] is False
    assert f"{result.id} (parity.add, queued)" in check["found"]
    assert "celery worker" in check["hint"]


def test_a_job_that_is_not_due_falls_back_to_its_time(own_world: World, make: MakeApp) -> None:
    away = make(TEMPORAL_ADDRESS="127.0.0.1:1")

    results = [away.tasks["parity.add"].apply_async([1, 1], countdown=3600) for _ in range(2)]

    assert [own_world.row(result.id)["status"] for result in results] == ["scheduled", "scheduled"]
    assert messages(own_world) == 2


def test_a_server_that_never_answers_is_as_one_that_is_away(
    own_world: World, make: MakeApp, silent_address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(temporal_client, "CONNECT_TIMEOUT", temporal_client.CONNECT_TIMEOUT / 10)
    app = make(TEMPORAL_ADDRESS=silent_address)

    results = [app.tasks["parity.add"].delay(1, number) for number in range(5)]

    assert {own_world.row(result.id)["runner_type"] for result in results} == {"celery"}
    assert messages(own_world) == 5


def test_in_the_callers_transaction_a_known_outage_falls_back_and_a_rollback_leaves_nothing(
    own_world: World, make: MakeApp
) -> None:
    away = make(TEMPORAL_ADDRESS="127.0.0.1:1")
    away.tasks["parity.add"].delay(0, 0)
    with psycopg.connect(own_world.database_url) as connection:
        with away.enqueue_on(connection):
            lost = away.tasks["parity.add"].delay(1, 1)
        connection.rollback()
        with away.enqueue_on(connection):
            kept = away.tasks["parity.add"].delay(2, 2)

    assert own_world.rows("task_id = %s", lost.id) == []
    assert own_world.row(kept.id)["runner_type"] == "celery"
    assert len(fallbacks(own_world, kept.id)) == 1
    assert messages(own_world) == 2


def test_without_fallback_the_job_waits_for_temporal(own_world: World, make: MakeApp) -> None:
    away = make(TEMPORAL_ADDRESS="127.0.0.1:1", JOB_RUNNER_FALLBACK_TO_PGBOSS="false")

    results = [away.tasks["parity.add"].delay(1, 2) for _ in range(2)]

    for result in results:
        row = own_world.row(result.id)
        assert (row["status"], row["runner_type"]) == ("pending", "temporal")
        assert fallbacks(own_world, result.id) == []
    assert messages(own_world) == 0


def test_a_job_that_falls_back_keeps_its_singleton_key(own_world: World, make: MakeApp) -> None:
    away = make(TEMPORAL_ADDRESS="127.0.0.1:1")

    handles = [away.enqueue("parity.echo", [number], singleton_key="one") for number in range(3)]

    assert [handle.outcome for handle in handles] == [Outcome.CREATED] + [Outcome.DEDUPLICATED] * 2
    assert messages(own_world) == 1
    assert len(fallbacks(own_world, str(handles[0].job_id))) == 1


def test_a_job_that_a_relay_delivered_meanwhile_does_not_fall_back(own_world: World, make: MakeApp) -> None:
    app = make(TEMPORAL_ADDRESS="127.0.0.1:1")
    delivery = app.delivery(Engine.TEMPORAL)
    relayed = own_world.app.delivery(Engine.TEMPORAL)
    fail = delivery.deliver

    def deliver_elsewhere_then_fail(envelope: Any) -> Any:
        own_world.app.recorder.record(relayed.deliver(envelope))
        return fail(envelope)

    delivery.deliver = deliver_elsewhere_then_fail  # type: ignore[method-assign]  # what happens between two steps
    delivery.client._here().has_namespace = True  # it was there when this process asked, and went since
    result = app.tasks["parity.add"].delay(1, 2)

    assert own_world.row(result.id)["runner_type"] == "temporal"
    assert messages(own_world) == 0
    own_world.worker()
    assert result.get(timeout=TIMEOUT) == 3
    assert len(own_world.lines(result, "add")) == 1


def test_temporal_goes_and_comes_back_and_each_job_runs_once(
    own_world: World, make: MakeApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    address = f"127.0.0.1:{port}"
    monkeypatch.setattr(temporal_client, "CALL_TIMEOUT", temporal_client.CALL_TIMEOUT / 10)
    app = make(TEMPORAL_ADDRESS=address, JOB_RUNNER_INIT_FAILURE_BACKOFF_MS="1000")
    own_world.environment["TEMPORAL_ADDRESS"] = address  # first: the relay of the celery worker delivers too
    own_world.worker(engine=Engine.CELERY)
    results = []
    database = tmp_path / "temporal.sqlite"

    def send(count: int) -> None:
        results.extend(app.tasks["parity.add"].delay(1, number) for number in range(count))

    send(2)  # it is not there yet
    with run_temporal(port=port, database=database, log_path=tmp_path / "t1.log"):
        wait_until(lambda: app.delivery(Engine.TEMPORAL).known_failure() is None)
        send(3)
    send(3)  # the first is in doubt and waits for the relay, the others fall back
    with run_temporal(port=port, database=database, log_path=tmp_path / "t2.log"):
        own_world.worker(engine=Engine.TEMPORAL)
        for result in results:
            assert result.get(timeout=60)

    assert [len(own_world.lines(result, "add")) for result in results] == [1] * 8
    engines = [own_world.row(result.id)["runner_type"] for result in results]
    assert engines == ["celery"] * 2 + ["temporal"] * 4 + ["celery"] * 2
    fell_back = [bool(fallbacks(own_world, result.id)) for result in results]
    assert fell_back == [engine == "celery" for engine in engines]


@pytest.mark.parametrize("answers_only", [True, False], ids=["answer lost", "request lost"])
def test_a_job_whose_request_gets_no_answer_is_in_doubt_and_runs_once(
    own_world: World, make: MakeApp, monkeypatch: pytest.MonkeyPatch, answers_only: bool
) -> None:
    monkeypatch.setattr(temporal_client, "CALL_TIMEOUT", temporal_client.CALL_TIMEOUT / 10)
    own_world.worker()
    _, _, port = own_world.environment["TEMPORAL_ADDRESS"].rpartition(":")
    with Proxy(int(port)) as proxy:
        app = make(TEMPORAL_ADDRESS=proxy.address, JOB_RUNNER_INIT_FAILURE_BACKOFF_MS="60000")
        add = app.tasks["parity.add"]
        before = add.delay(1, 1)
        proxy.freeze(answers_only=answers_only)
        in_doubt = add.delay(2, 2)
        known = add.delay(3, 3)
        proxy.thaw()
        assert in_doubt.get(timeout=TIMEOUT) == 4
        app.delivery(Engine.TEMPORAL).check()
        after = add.delay(4, 4)

        assert [before.get(timeout=TIMEOUT), after.get(timeout=TIMEOUT)] == [2, 8]
    engines = [own_world.row(result.id)["runner_type"] for result in (before, in_doubt, known, after)]
    assert engines == ["temporal", "temporal", "celery", "temporal"]
    assert [len(own_world.lines(result, "add")) for result in (before, in_doubt, after)] == [1, 1, 1]
    assert [len(fallbacks(own_world, result.id)) for result in (in_doubt, known)] == [0, 1]


def test_failed_attempts_leave_no_connection_no_thread_and_no_socket(own_world: World, make: MakeApp) -> None:
    app = make(TEMPORAL_ADDRESS=f"127.0.0.1:{free_port()}", JOB_RUNNER_INIT_FAILURE_BACKOFF_MS="0")
    add = app.tasks["parity.add"]

    def used() -> tuple[int, int, int]:
        with psycopg.connect(own_world.database_url) as connection:
            [(sessions,)] = connection.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            ).fetchall()
        return int(sessions), threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))

    for number in range(3):
        add.delay(1, number)
    before = used()
    for number in range(200):
        add.delay(1, number)

    assert all(now <= then + 2 for now, then in zip(used(), before, strict=True)), (before, used())
    assert messages(own_world) == 203
    assert {row["runner_type"] for row in own_world.rows()} == {"celery"}
