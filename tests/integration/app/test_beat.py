"""`celery beat` as processes: what is declared, what is due, and dying in the middle."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from jobbridge import Celery
from jobbridge.app.schedules.declared import sync_declared
from jobbridge.core.keys import Engine
from jobbridge.core.schedules.definition import ScheduleDefinition
from jobbridge.core.schedules.policies import Overlap
from jobbridge.core.schedules.specs import parse_spec
from jobbridge.dev.postgres import PostgresServer
from jobbridge.dev.process import ManagedProcess
from jobbridge.settings import load_settings
from jobbridge.store.schedules.repository import CHANNEL, ScheduleStore
from tests.forked import run_python
from tests.support import clean_environment, wait_until, worker_process

START = datetime(2026, 6, 1, 12, tzinfo=UTC)
SCHEDULES = 1000
MINUTES = 5


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def app(database_url: str) -> Iterator[Celery]:
    app = Celery("beaten", settings=load_settings({"DATABASE_URL": database_url}))
    app.task(name="beat.tick", shared=False)(_tick)
    yield app
    app.close()


def _tick(*args: Any) -> None:
    """Never run: no worker is started."""


@contextmanager
def beat(folder: Path, name: str, *arguments: str, **settings: str) -> Iterator[ManagedProcess]:
    argv = [
        "-m",
        "celery",
        "-A",
        "tests.integration.app.beat_app",
        "beat",
        "-l",
        "INFO",
        "--pidfile=",
        *arguments,
    ]
    with worker_process(
        argv,
        name=name,
        log_path=folder / f"{name}.log",
        env=clean_environment(settings),
        ready="beat: Starting...",
        cwd=Path(__file__).parents[3],
    ) as process:
        yield process


@pytest.mark.long
def test_a_thousand_schedules_on_two_beats_of_which_one_is_killed(
    database_url: str, tmp_path: Path, connection: psycopg.Connection[Any], app: Celery
) -> None:
    _make_schedules(connection, app)
    virtual = ("-S", "tests.integration.app.beat_app:VirtualBeat")
    with (
        beat(tmp_path, "first", *virtual, DATABASE_URL=database_url) as first,
        beat(tmp_path, "second", *virtual, DATABASE_URL=database_url) as second,
    ):
        for minute in range(1, MINUTES + 1):
            _set_clock(connection, START + timedelta(minutes=minute))
            if minute == 3:
                begun = SCHEDULES * (minute - 1) + 100
                wait_until(lambda least=begun: _count(connection, "jobs") >= least, every=0.005)
                first.kill()
                assert _count(connection, "jobs") < SCHEDULES * minute, "killed while they fire"
            wait_until(lambda due=SCHEDULES * minute: _count(connection, "jobs") >= due, timeout=60)
        assert second.is_running

    assert _count(connection, "jobs") == SCHEDULES * MINUTES
    assert _count(connection, "jobbridge_broker.messages") == SCHEDULES * MINUTES
    per_fire = connection.execute(
        "SELECT fire_at, count(DISTINCT schedule_id), count(DISTINCT job_id), min(outcome), max(outcome)"
        " FROM job_schedule_fires GROUP BY fire_at ORDER BY fire_at"
    ).fetchall()
    assert per_fire == [
        (START + timedelta(minutes=minute), SCHEDULES, SCHEDULES, "enqueued", "enqueued")
        for minute in range(1, MINUTES + 1)
    ]


def test_beat_fires_what_code_declares_and_what_is_made_while_it_runs(
    database_url: str, tmp_path: Path, connection: psycopg.Connection[Any], app: Celery
) -> None:
    with beat(tmp_path, "beat", DATABASE_URL=database_url, BEAT_MORE="1") as process:
        wait_until(lambda: _fires(connection, "every-second") >= 2)
        # It sleeps for up to half a minute otherwise: the notification wakes it.
        app.schedules.create("beat.tick", "1 second", name="made-now", overlap="allow")
        wait_until(lambda: _fires(connection, "made-now") >= 1, timeout=5)
        declared = {row.name: row for row in app.schedules.list() if row.declared_by == "beating"}
        process.stop()
        assert process.exit_code == 0, process.tail(30)

    assert set(declared) == {"every-second", "only-before", "beat.nightly"}
    nightly = declared["beat.nightly"]
    assert (nightly.spec, nightly.zone, nightly.jitter_seconds) == ("0 3 * * *", "Europe/Berlin", 300)
    assert (nightly.overlap, declared["every-second"].overlap) == (Overlap.SKIP, Overlap.ALLOW)
    assert (nightly.args, declared["every-second"].args) == ([{}], ["static"])
    _every_fire_is_a_second_after_the_last(connection, "every-second")

    with beat(tmp_path, "later", DATABASE_URL=database_url):
        wait_until(lambda: "only-before" not in {row.name for row in app.schedules.list()})
    assert {"every-second", "beat.nightly", "made-now"} == {row.name for row in app.schedules.list()}


def test_beat_goes_on_when_its_sessions_were_ended(
    database_url: str, tmp_path: Path, connection: psycopg.Connection[Any]
) -> None:
    with beat(tmp_path, "beat", DATABASE_URL=database_url) as process:
        wait_until(lambda: _fires(connection, "every-second") >= 1)
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        before = _fires(connection, "every-second")
        wait_until(lambda: _fires(connection, "every-second") >= before + 3)
        assert process.is_running
        assert "Traceback" not in process.log()

    _every_fire_is_a_second_after_the_last(connection, "every-second")


def test_beat_waits_for_a_database_that_is_not_there_yet(
    postgres: PostgresServer, migrated_template: str, tmp_path: Path
) -> None:
    name = f"later_{uuid.uuid4().hex}"
    with beat(tmp_path, "beat", DATABASE_URL=postgres.url(name)) as process:
        wait_until(lambda: "beat.cannot_fire" in process.log())
        url = postgres.create_database(name, template=migrated_template)
        with psycopg.connect(url, autocommit=True) as connection:
            wait_until(lambda: _fires(connection, "every-second") >= 1)
        assert process.is_running
    with psycopg.connect(postgres.url(), autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")  # type: ignore[arg-type]  # a name of ours


def test_beat_runs_inside_a_worker_too(
    database_url: str, tmp_path: Path, connection: psycopg.Connection[Any]
) -> None:
    argv = ["-m", "celery", "-A", "tests.integration.app.beat_app", "worker", "-B", "-l", "INFO", "-c", "1"]
    with worker_process(
        [*argv, "-Q", "nobody"],
        name="worker",
        log_path=tmp_path / "worker.log",
        env=clean_environment({"DATABASE_URL": database_url}),
        cwd=Path(__file__).parents[3],
    ) as process:
        wait_until(lambda: _fires(connection, "every-second") >= 2)
        process.stop()
        assert process.exit_code == 0, process.tail(30)


def _make_schedules(connection: psycopg.Connection[Any], app: Celery) -> None:
    connection.execute("CREATE TABLE virtual_clock (now_at timestamptz)")
    connection.execute("INSERT INTO virtual_clock VALUES (%s)", [START])
    store = ScheduleStore(app.database, clock=lambda _: START)
    every_minute = parse_spec("* * * * *")
    with app.database.transaction() as own:
        for number in range(SCHEDULES):
            definition = ScheduleDefinition(
                name=f"tick-{number}",
                task="beat.tick",
                spec=every_minute,
                engine=Engine.CELERY,
                overlap=Overlap.ALLOW,
            )
            store.save(definition, own)


def _set_clock(connection: psycopg.Connection[Any], now: datetime) -> None:
    connection.execute("UPDATE virtual_clock SET now_at = %s", [now])
    connection.execute(f"NOTIFY {CHANNEL}")


def _count(connection: psycopg.Connection[Any], table: str) -> int:
    row = connection.execute(f"SELECT count(*) FROM {table}").fetchone()  # type: ignore[arg-type]  # names of ours
    assert row is not None
    return int(row[0])


def _fires(connection: psycopg.Connection[Any], name: str) -> int:
    return len(_instants(connection, name))


def _instants(connection: psycopg.Connection[Any], name: str) -> list[datetime]:
    rows = connection.execute(
        "SELECT fire_at FROM job_schedule_fires JOIN job_schedules USING (tenant, schedule_id)"
        " WHERE name = %s AND outcome = 'enqueued' ORDER BY fire_at",
        [name],
    ).fetchall()
    return [instant for (instant,) in rows]


def _every_fire_is_a_second_after_the_last(connection: psycopg.Connection[Any], name: str) -> None:
    instants = _instants(connection, name)
    assert instants == [instants[0] + timedelta(seconds=number) for number in range(len(instants))]
    assert _count(connection, "jobs") >= len(instants)


def test_an_entry_that_cannot_be_honoured_is_named_and_skipped_and_the_others_fire(
    database_url: str, tmp_path: Path, connection: psycopg.Connection[Any]
) -> None:
    with beat(tmp_path, "beat", DATABASE_URL=database_url, BEAT_ODD="1") as process:
        wait_until(lambda: _jobs(connection, "every-second"), message="the sound one fires")
        wait_until(lambda: _jobs(connection, "dated"), message="the one with dates fires")
        log = process.log()

    for name in ("solar", "half", "subclass", "text", "no mapping", "no task", "unsendable", "odd zone"):
        assert log.count(f"{name!r} is declared and cannot be honoured") == 1, name
    assert "Traceback" not in log
    rows = connection.execute("SELECT name FROM job_schedules WHERE declared_by = 'beating'").fetchall()
    assert {name for (name,) in rows} == {"every-second", "dated", "beat.nightly"}
    sent = connection.execute(
        "SELECT convert_from(body, 'UTF8')::json FROM jobbridge_broker.messages"
        " WHERE convert_from(body, 'UTF8') ~ '__type__'"
    ).fetchone()
    assert sent is not None
    assert sent[0][0] == [{"__type__": "datetime", "__value__": "2026-06-01T12:00:00+00:00"}]

    done = run_python(
        ["-m", "jobbridge.cli", "doctor", "-A", "tests.integration.app.beat_app"],
        env=clean_environment({"DATABASE_URL": database_url, "BEAT_ODD": "1"}),
    )
    assert "'solar' is declared and cannot be honoured" in done.stdout


def test_what_was_declared_well_before_is_not_deleted_when_it_cannot_be_honoured_now(
    app: Celery, connection: psycopg.Connection[Any]
) -> None:
    app.conf.beat_schedule = {"mine": {"task": "beat.tick", "schedule": 60}}
    sync_declared(app)
    app.conf.beat_schedule = {"mine": {"task": "beat.tick", "schedule": 0.5}}

    synced = sync_declared(app)

    assert list(synced.refused) == ["mine"]
    assert connection.execute("SELECT count(*) FROM job_schedules WHERE name = 'mine'").fetchone() == (1,)


def test_an_older_release_that_starts_again_leaves_what_a_newer_one_declares(
    app: Celery, connection: psycopg.Connection[Any]
) -> None:
    every_minute = {"task": "beat.tick", "schedule": 60}
    older, newer = {"both": every_minute}, {"both": every_minute, "new": every_minute}
    newest = {"new": every_minute}

    def started(declares: dict[str, Any]) -> list[str]:
        app.conf.beat_schedule = declares
        sync_declared(app)
        # Celery's own are among them, and what handlers declare, if some test of this process has loaded them.
        return [row.name for row in app.schedules.list() if row.name in ("both", "new")]

    assert started(older) == ["both"]
    assert started(newer) == ["both", "new"]
    app.schedules.pause("new", note="not yet")
    for _ in range(2):
        assert started(older) == ["both", "new"]
        assert started(newer) == ["both", "new"]
    assert app.schedules.find("new").note == "not yet"
    assert started(newest) == ["new"]
    # The newer ones were rolled back, and have been silent for longer than their word holds.
    connection.execute("UPDATE job_keys SET expires_at = now() WHERE key LIKE 'jobbridge/schedules of %'")
    assert started(older) == ["both"]
    assert started(newer) == ["both", "new"]
    assert (app.schedules.find("new").paused, app.schedules.find("new").note) == (True, "not yet")
    assert app.schedules.find("new").due_at is None


def test_an_older_release_that_starts_again_does_not_change_back_what_a_newer_one_changed(
    app: Celery, connection: psycopg.Connection[Any]
) -> None:
    older = {"both": {"task": "beat.tick", "schedule": 60, "args": [1]}}
    newer = {"both": {"task": "beat.tick", "schedule": 120, "args": [2], "options": {"queue": "slow"}}}

    def started(declares: dict[str, Any]) -> tuple[str, Any, str | None]:
        app.conf.beat_schedule = declares
        synced = sync_declared(app)
        row = app.schedules.find("both")
        assert ("both" in synced.kept) == (declares is older and row.args == [2])
        return row.spec, row.args, row.queue

    assert started(older) == ("1 minute", [1], None)
    for _ in range(2):
        assert started(newer) == ("2 minutes", [2], "slow")
        assert started(older) == ("2 minutes", [2], "slow")
    # A beat of a release before this one says only which schedules it declares.
    connection.execute("""
        UPDATE job_keys SET value = convert_to((
            SELECT jsonb_agg(said || jsonb_build_object('declared', (
                SELECT jsonb_agg(each) FROM jsonb_object_keys(said -> 'declared') AS each
            ))) FROM jsonb_array_elements(convert_from(value, 'UTF8')::jsonb) AS said
        )::text, 'UTF8')
        WHERE key LIKE 'jobbridge/schedules of %'
    """)
    assert started(older) == ("1 minute", [1], None)
    assert started(newer) == ("2 minutes", [2], "slow")
    # The newer one was rolled back, and has been silent for longer than its word holds.
    connection.execute("UPDATE job_keys SET expires_at = now() WHERE key LIKE 'jobbridge/schedules of %'")
    assert started(older) == ("1 minute", [1], None)


def _jobs(connection: psycopg.Connection[Any], schedule: str) -> bool:
    statement = "SELECT 1 FROM jobs WHERE metadata->'schedule'->>'name' = %s"
    return connection.execute(statement, [schedule]).fetchone() is not None
