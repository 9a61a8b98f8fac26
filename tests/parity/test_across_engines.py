"""Both engines at once, and what happens when one of them, or the books, are away."""

from __future__ import annotations

import uuid
from pathlib import Path

import psycopg
import pytest
from celery import chain, chord

from jobbridge.core.keys import Engine
from jobbridge.errors import (
    ConfigurationError,
    DatabaseUnavailable,
    EngineUnavailable,
    NotMigrated,
    UnsupportedOption,
)
from jobbridge.settings import load_settings
from tests.parity.conftest import World
from tests.parity.tasks import make_app
from tests.support import wait_until

TIMEOUT = 30


@pytest.fixture
def engine() -> Engine:
    return Engine.TEMPORAL


def test_a_chain_and_a_chord_cross_from_one_engine_to_the_other(own_world: World) -> None:
    world = own_world
    world.worker(engine=Engine.CELERY)
    world.worker(engine=Engine.TEMPORAL)
    add, total = world.task("add"), world.task("total")

    result = chain(
        add.s(1, 2).set(engine="celery"),
        add.s(3).set(engine="temporal"),
        add.s(4).set(engine="celery"),
        add.s(5).set(engine="temporal"),
    ).delay()

    assert result.get(timeout=TIMEOUT) == 15
    rows = world.rows("root_id = %s", uuid.UUID(result.parent.parent.parent.id))
    assert [row["runner_type"] for row in rows] == ["celery", "temporal", "celery", "temporal"]
    assert {row["status"] for row in rows} == {"completed"}

    header = [add.s(i, i).set(engine=engine) for i, engine in enumerate(["celery", "temporal"] * 2)]
    assert chord(header, total.s().set(engine="celery")).delay().get(timeout=TIMEOUT) == 12


def test_a_task_that_is_replaced_by_one_of_the_other_engine(own_world: World) -> None:
    own_world.worker(engine=Engine.CELERY)
    own_world.worker(engine=Engine.TEMPORAL)

    for there, back in (("celery", "temporal"), ("temporal", "celery")):
        result = own_world.task("moves").apply_async([back], engine=there)
        assert result.get(timeout=TIMEOUT) == 3
        assert own_world.row(result.id)["runner_type"] == back


def test_routes_and_options_choose_the_engine(own_world: World) -> None:
    routes = {"parity.add": {"engine": "celery"}}
    app = make_app(settings=load_settings(own_world.environment), task_routes=routes)
    app.finalize()

    routed = app.tasks["parity.add"].delay(1, 1)
    asked = app.tasks["parity.add"].apply_async([1, 1], engine="temporal")
    default = app.tasks["parity.echo"].delay(1)

    engines = [own_world.row(result.id)["runner_type"] for result in (routed, asked, default)]
    assert engines == ["celery", "temporal", "temporal"]
    app.close()


def test_an_engine_that_there_is_not_is_refused(own_world: World) -> None:
    with pytest.raises(UnsupportedOption, match="sidekiq"):
        own_world.task("add").apply_async([1, 1], engine="sidekiq")

    assert own_world.rows() == []


def test_a_missing_row_stops_nothing_and_heals(own_world: World) -> None:
    results = [own_world.task("add").apply_async([1, 2], engine=engine) for engine in ("celery", "temporal")]
    with psycopg.connect(own_world.database_url) as connection:
        connection.execute("DELETE FROM jobs")
    own_world.worker(engine=Engine.CELERY)
    own_world.worker(engine=Engine.TEMPORAL)

    for result in results:
        assert result.get(timeout=TIMEOUT) == 3
        assert own_world.row(result.id)["status"] == "completed"


def test_a_job_sent_while_temporal_is_away_waits_and_is_delivered_later(own_world: World) -> None:
    elsewhere = {"TEMPORAL_ADDRESS": "127.0.0.1:1", "JOB_RUNNER_FALLBACK_TO_CELERY": "false"}
    away = make_app(settings=load_settings({**own_world.environment, **elsewhere}))
    away.finalize()

    result = away.tasks["parity.add"].apply_async([2, 2])

    row = own_world.row(result.id)
    assert (row["status"], row["runner_type"]) == ("pending", "temporal")
    own_world.worker()
    assert own_world.app.AsyncResult(result.id).get(timeout=TIMEOUT) == 4
    assert len(own_world.lines(result, "add")) == 1
    away.close()


def test_without_temporalio_its_engine_is_refused_and_nothing_is_written(
    own_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(own_world.app), "delivery_factories", {})

    with pytest.raises(EngineUnavailable) as caught:
        own_world.task("add").delay(1, 1)

    assert "pip install" in caught.value.hint
    assert own_world.rows() == []


def test_without_a_database_an_error_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    app = make_app(settings=load_settings({}))
    app.finalize()

    with pytest.raises(ConfigurationError) as caught:
        app.tasks["parity.add"].delay(1, 1)

    assert "DATABASE_URL" in caught.value.hint


def test_a_database_that_is_away_is_named(own_world: World) -> None:
    app = make_app(settings=load_settings({"DATABASE_URL": "postgresql://u:secret@127.0.0.1:1/nowhere"}))
    app.conf.task_publish_retry_policy = {"max_retries": 0}
    app.finalize()

    with pytest.raises(DatabaseUnavailable, match=r"'nowhere' at 127\.0\.0\.1:1") as caught:
        app.tasks["parity.add"].delay(1, 1)

    assert "secret" not in str(caught.value)


def test_a_database_that_is_not_migrated_is_refused(empty_database_url: str) -> None:
    app = make_app(settings=load_settings({"DATABASE_URL": empty_database_url}))
    app.finalize()

    with pytest.raises(NotMigrated) as caught:
        app.tasks["parity.add"].delay(1, 1)

    assert "jobbridge migrate" in caught.value.hint
    app.close()


def test_a_job_that_was_cancelled_while_it_waited_for_a_retry_does_not_run_again(own_world: World) -> None:
    own_world.worker(engine=Engine.TEMPORAL)
    result = own_world.task("retry_slowly").delay()
    own_world.wait_for_status(result.id, "retrying")

    assert own_world.app.cancel_job(result.id, reason="enough")

    wait_until(lambda: result.state == "REVOKED", timeout=TIMEOUT)
    assert len(own_world.lines(result, "retry_slowly")) == 1
