"""What the doctor finds: nothing in a healthy system, and each fault by its name, with what to do."""

from __future__ import annotations

import base64
import json
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from jobbridge import Celery
from jobbridge.app.worker.presence import Presence
from jobbridge.core.keys import Engine
from jobbridge.core.schedules.definition import ScheduleDefinition
from jobbridge.core.schedules.specs import parse_spec
from jobbridge.dev.postgres import run_postgres
from jobbridge.dev.temporal import TemporalServer
from jobbridge.diagnosis import upkeep
from jobbridge.diagnosis.checks import check_all
from jobbridge.diagnosis.connections import of_worker
from jobbridge.diagnosis.findings import Check
from jobbridge.diagnosis.vacuum import check_vacuum
from jobbridge.settings import load_settings
from jobbridge.store.schedules.repository import ScheduleStore
from jobbridge.store.schema.migrate import migrate
from jobbridge.store.workers import services
from tests.conftest import StartWorker
from tests.parity.tasks import make_app
from tests.support import wait_until

MakeApp = Callable[..., Celery]


@pytest.fixture
def make(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeApp]:
    """Give an app with these settings, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    with ExitStack() as opened:

        def make(**environment: str) -> Celery:
            app = make_app(settings=load_settings({"DATABASE_URL": database_url, **environment}))
            app.finalize()
            opened.callback(app.close)
            return app

        yield make


@pytest.fixture
def app(make: MakeApp) -> Celery:
    return make()


@pytest.fixture
def worker(app: Celery) -> Iterator[Presence]:
    """A worker as the others see it: its row and its lock."""
    presence = Presence(app, name="one@here", engine=Engine.CELERY)
    assert presence.open()
    yield presence
    presence.close()


def faults(app: Celery) -> dict[str, Check]:
    found = {check.name: check for check in check_all(app, app.settings) if not check.is_good}
    assert all(check.hint for check in found.values())
    return found


def change(app: Celery, statement: str, *values: object) -> None:
    with app.database.transaction() as connection:
        connection.execute(statement, values)


def test_a_healthy_system_has_no_fault(app: Celery, worker: Presence) -> None:
    app.enqueue("parity.add", [1, 2])

    assert faults(app) == {}


def test_keys_that_are_missing_are_named(make: MakeApp, worker: Presence) -> None:
    keys = {name: f"{name}:{base64.b64encode(os.urandom(32)).decode()}" for name in ("old", "new")}
    before, after = (make(JOBBRIDGE_ENCRYPTION_KEYS=keys[name]) for name in ("old", "new"))
    sent = before.enqueue("parity.add", [1, 2])
    after.enqueue("parity.add", [1, 2])

    assert faults(make(JOBBRIDGE_ENCRYPTION_KEYS=",".join((keys["new"], keys["old"])))) == {}
    found = faults(after)["encryption"]
    assert "'old' (jobs that are still to run need it); here are: 'new'" in found.found
    assert "JOBBRIDGE_ENCRYPTION_KEYS" in found.hint
    assert "'new' (jobs that are still to run need it), 'old'" in faults(make())["encryption"].found

    # Ended: only its row is sealed.
    before.cancel_job(sent.job_id)
    change(before, "DELETE FROM jobbridge_broker.messages")
    assert "not here: 'old'; here are: 'new'" in faults(after)["encryption"].found


def test_more_connections_than_postgres_allows_are_named(make: MakeApp, server_folder: Path) -> None:
    few = {"max_connections": "20"}  # of which three are kept for administrators
    with run_postgres(server_folder / "few", is_durable=False, settings=few) as server, ExitStack() as opened:
        url = server.create_database("few")
        migrate(url)
        app = make(DATABASE_URL=url)
        presence = Presence(app, name="one@here", engine=Engine.CELERY)
        assert presence.open()
        opened.callback(presence.close)
        for _ in range(10):
            opened.enter_context(psycopg.connect(server.url()))
        fault = faults(app)["connections"]

    assert "1 workers" in fault.found
    assert "1 of the workers did not say" in fault.found
    assert "max_connections" in fault.hint


@pytest.mark.parametrize(
    ("pool", "may_open"),
    [
        ({"max-concurrency": 4, "processes": [1, 2, 3, 4]}, 6 + 1 + 4 * 3),
        ({"max-concurrency": 20}, 6 + 20 * 2 + 10),  # threads share kombu's pool of ten
        (None, 6 + 3),
    ],
)
def test_the_connections_of_a_worker_are_added_up(
    app: Celery, pool: dict[str, Any] | None, may_open: int
) -> None:
    assert of_worker(Engine.CELERY, pool, app) == may_open


def test_a_dotenv_file_that_says_another_edition_is_named(make: MakeApp, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("EDITION=enterprise\n")

    found = faults(make(EDITION="community"))["edition"]

    assert ".env EDITION says 'enterprise'" in found.found
    assert ".env" in found.hint


def test_a_dotenv_file_that_moves_jobs_away_from_the_workers_is_named(
    make: MakeApp, worker: Presence, tmp_path: Path, temporal_server: str
) -> None:
    (tmp_path / ".env").write_text("EDITION=enterprise\n")

    found = faults(make(TEMPORAL_ADDRESS=temporal_server))["edition"]

    assert "go to temporal (.env EDITION)" in found.found
    assert "all workers that run are of celery" in found.found
    assert "send such jobs elsewhere: one@here (to celery)" in found.found


def test_edition_and_runner_type_that_contradict_each_other_are_named(make: MakeApp, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("JOB_RUNNER_TYPE=celery\n")

    assert "JOB_RUNNER_TYPE says celery" in faults(make(EDITION="enterprise"))["edition"].found


def test_a_database_that_is_not_migrated_is_named(
    empty_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    app = make_app(settings=load_settings({"DATABASE_URL": empty_database_url}))

    assert "jobbridge migrate" in faults(app)["database"].hint
    app.close()


@pytest.mark.parametrize("reads", [True, False])
def test_a_transaction_that_holds_vacuum_back_is_named(
    app: Celery, database_url: str, *, reads: bool
) -> None:
    with psycopg.connect(database_url, application_name="report") as other:
        if reads:
            other.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        other.execute(
            "SELECT 1" if reads else "INSERT INTO job_keys (tenant, key, value) VALUES ('a', 'b', 'c')"
        )

        check = check_vacuum(app, long=timedelta(0))

        assert not check.is_good
        assert f"report (process {other.info.backend_pid}, idle in transaction" in check.found
        assert check_vacuum(app).is_good, "not for long"


def test_a_queue_that_no_worker_serves_is_named(app: Celery, worker: Presence) -> None:
    app.enqueue("parity.add", [1, 2], queue="reports")

    found = faults(app)["workers"]

    assert "1 parity.add (celery) in the queue 'reports'" in found.found
    assert "-Q reports" in found.hint


def test_a_task_that_no_worker_knows_is_named(app: Celery, worker: Presence) -> None:
    app.send_task("no.such.task", args=(1,))

    assert "1 'no.such.task' wait in 'celery' (celery)" in faults(app)["tasks"].found


def test_a_task_that_a_worker_refused_is_named(app: Celery, worker: Presence) -> None:
    sent = app.send_task("no.such.task")
    change(
        app,
        "UPDATE jobs SET status = 'failed', error = 'No task is registered under ''no.such.task'' on this worker.', "
        "completed_at = now() WHERE task_id = %s",
        sent.id,
    )

    assert "workers refused 'no.such.task'" in faults(app)["tasks"].found


def test_a_job_whose_worker_is_gone_is_named(app: Celery, worker: Presence) -> None:
    held, lost = (app.enqueue("parity.add", [1, number]).job_id for number in range(2))
    for job_id, number in ((held, worker.number), (lost, worker.number + 1)):
        change(
            app,
            "UPDATE jobs SET status = 'processing', attempt = 1, worker = 'one@here', worker_number = %s, "
            "started_at = now(), updated_at = now() - interval '5 minutes' WHERE job_id = %s",
            number,
            job_id,
        )

    found = faults(app)["held jobs"].found

    assert str(lost) in found
    assert str(held) not in found


@pytest.mark.parametrize("engine", Engine)
def test_a_running_job_that_was_written_by_hand_is_named(
    app: Celery, worker: Presence, engine: Engine
) -> None:
    job_id = uuid.uuid4()
    change(
        app,
        "INSERT INTO jobs (tenant, job_id, task_id, type, status, runner_type) "
        "VALUES ('acme', %s, %s, 'parity.add', 'processing', %s)",
        job_id,
        str(job_id),
        engine.value,
    )

    assert str(job_id) in faults(app)["held jobs"].found


def test_a_job_that_waits_for_others_has_no_holder_and_is_no_fault(app: Celery, worker: Presence) -> None:
    job = app.enqueue("parity.add", [1, 2])
    change(app, "DELETE FROM jobbridge_broker.messages")
    change(
        app,
        "UPDATE jobs SET status = 'processing', attempt = 1, delivery = NULL, started_at = now(), "
        "updated_at = now() - interval '1 day' WHERE job_id = %s",
        job.job_id,
    )

    assert faults(app) == {}


def test_what_a_living_worker_runs_is_no_fault_and_what_it_does_not_have_is_named(
    app: Celery, celery_worker: StartWorker, database_url: str, tmp_path: Path
) -> None:
    worker = celery_worker("tests.parity.app", DATABASE_URL=database_url, PARITY_FOLDER=str(tmp_path))
    early = app.tasks["parity.hold_early"].delay()  # its message is gone while it runs
    done = app.enqueue("parity.add", [1, 2]).job_id
    wait_until(lambda: app.jobs.find(done).status.is_final)  # type: ignore[union-attr]  # it is there
    wait_until(lambda: app.jobs.find(uuid.UUID(early.id)).status == "processing")  # type: ignore[union-attr]
    change(app, "UPDATE jobs SET updated_at = now() - interval '1 day'")
    assert faults(app) == {}

    change(app, "UPDATE jobs SET status = 'processing', completed_at = NULL WHERE job_id = %s", done)

    found = faults(app)["held jobs"].found
    assert f"{done} (parity.add" in found
    assert "does not have it" in found
    assert early.id not in found
    worker.kill()


def test_a_job_that_no_engine_accepts_is_named(make: MakeApp) -> None:
    app = make(TEMPORAL_ADDRESS="127.0.0.1:1", JOB_RUNNER_FALLBACK_TO_CELERY="false")
    app.enqueue("parity.add", [1, 2], engine="temporal")
    change(app, "UPDATE jobs SET updated_at = now() - interval '5 minutes'")

    found = faults(app)

    assert "1 temporal pending (the oldest: 5 min ago)" in found["delivery"].found
    assert "127.0.0.1:1" in found["temporal"].found


def test_jobs_that_fell_back_are_named(make: MakeApp) -> None:
    app = make(TEMPORAL_ADDRESS="127.0.0.1:1")
    job = app.enqueue("parity.add", [1, 2], engine="temporal")

    assert str(job.job_id) in faults(app)["fallback"].found


def test_one_fault_does_not_hide_another(app: Celery) -> None:
    app.enqueue("parity.add", [1, 2], queue=f"queue-{uuid.uuid4().hex[:6]}")
    change(app, "UPDATE jobs SET updated_at = now() - interval '5 minutes'")
    app.enqueue("parity.add", [1, 2])
    change(app, "UPDATE jobs SET status = 'processing' WHERE queue = 'celery'")
    change(app, "UPDATE jobs SET updated_at = now() - interval '5 minutes'")

    assert {"workers", "held jobs"} <= set(faults(app))


def test_a_schedule_without_a_consumer_and_one_that_nobody_fires_are_named(
    app: Celery, worker: Presence
) -> None:
    store = ScheduleStore(app.database)
    for name, task, queue in (
        ("served", "parity.add", None),
        ("unserved", "parity.add", "reports"),
        ("unknown", "no.such.task", None),
    ):
        definition = ScheduleDefinition(
            name=name, task=task, spec=parse_spec("24 hours"), engine=Engine.CELERY, queue=queue
        )
        store.save(definition)
    change(app, "UPDATE job_schedules SET due_at = now() - interval '2 minutes' WHERE name = 'served'")

    found = faults(app)["schedules"]

    assert "'served' was to fire 2 min ago, and did not" in found.found
    assert "'unserved' fills the queue 'reports', which no worker of celery serves" in found.found
    assert "'unknown' sends 'no.such.task', which no worker knows" in found.found
    assert "beat -S jobbridge" in found.hint
    change(app, "UPDATE job_schedules SET paused = true")
    assert faults(app) == {}


def test_a_service_that_failed_is_named(app: Celery, worker: Presence) -> None:
    with app.database.transaction() as connection:
        services.note_start(connection, "reaper", "one@here")
        services.note_failure(connection, "reaper", "out of paper")

    assert "reaper failed: out of paper" in faults(app)["services"].found


def test_a_service_that_stands_still_in_a_worker_that_lives_is_named(app: Celery, worker: Presence) -> None:
    with app.database.transaction() as connection:
        services.note_start(connection, "reaper", "one@here")
        services.note_end(connection, "reaper", {})
    change(app, "UPDATE job_services SET last_started = now() - interval '1 hour'")

    assert "reaper ran last 1 h ago, and its worker one@here lives" in faults(app)["services"].found


def test_a_service_that_nobody_offers_any_more_is_no_fault(app: Celery, worker: Presence) -> None:
    """Such as that of an engine which was given up."""
    with app.database.transaction() as connection:
        services.note_start(connection, "workflow-reconciler", "gone@there")
        services.note_failure(connection, "workflow-reconciler", "Temporal cannot be reached")
    change(
        app,
        "UPDATE job_services SET last_started = now() - interval '1 day', failed_at = now() - interval '1 day'",
    )

    assert faults(app) == {}


def test_rows_and_workflows_that_do_not_agree_are_named(
    make: MakeApp, temporal: TemporalServer, task_queue: str
) -> None:
    app = make(
        TEMPORAL_ADDRESS=temporal.address, TEMPORAL_JOB_TASK_QUEUE=task_queue, JOB_RUNNER_TYPE="temporal"
    )
    presence = Presence(app, name="one@here", engine=Engine.TEMPORAL)
    assert presence.open()
    good, orphan, rowless = (app.enqueue("parity.add", [1, number]).job_id for number in range(3))
    change(app, "UPDATE jobs SET updated_at = now() - interval '5 minutes'")
    change(app, "DELETE FROM jobs WHERE job_id = %s", rowless)
    temporal.run_cli("workflow", "terminate", "--workflow-id", str(orphan), "--reason", "test")

    def named() -> str:
        found = upkeep.check_drift(app, apart=0.5)[0].found
        assert str(rowless) in found  # Temporal lists what it has a moment later
        return found

    found = wait_until(named)
    assert f"row without a running workflow: {orphan} (parity.add, queued; it is TERMINATED)" in found
    assert str(good) not in found
    presence.close()


def test_a_row_by_hand_has_no_workflow_and_a_foreign_workflow_may_wait_for_its_worker(
    make: MakeApp, temporal: TemporalServer, task_queue: str
) -> None:
    app = make(
        TEMPORAL_ADDRESS=temporal.address, TEMPORAL_JOB_TASK_QUEUE=task_queue, JOB_RUNNER_TYPE="temporal"
    )
    ghost, own, foreign = (str(uuid.uuid4()) for _ in range(3))
    change(
        app,
        "INSERT INTO jobs (tenant, job_id, task_id, type, status, runner_type, queue) "
        "VALUES ('acme', %s, %s, 'parity.add', 'queued', 'temporal', 'celery')",
        ghost,
        ghost,
    )
    # Another installation in the same namespace has queues, and rows, of its own.
    for job_id, queue in ((foreign, f"{task_queue}-of-others"), (own, task_queue)):
        temporal.run_cli(
            "workflow", "start", "--type", "genericJobWorkflow", "--task-queue", queue, "--workflow-id", job_id,
            "--input", json.dumps({"jobId": job_id, "jobName": "parity.add", "tenantId": "acme", "data": {}}),
        )  # fmt: skip

    def named() -> str:
        found = upkeep.check_drift(app, apart=0.5)[0].found
        assert own in found  # Temporal lists what it has a moment later
        return found

    found = wait_until(named)
    assert f"{ghost} (parity.add, queued; none is there)" in found
    assert foreign not in found

    presence = Presence(app, name="one@here", engine=Engine.TEMPORAL)
    assert presence.open()
    found = upkeep.check_drift(app, apart=0.5)[0].found
    assert own not in found  # its worker makes its row in a moment
    presence.close()


def test_a_dotenv_file_that_only_this_process_reads_is_named(
    make: MakeApp, worker: Presence, tmp_path: Path, temporal_server: str
) -> None:
    """Both engines run, and Temporal answers: only the workers' own settings tell that something is wrong."""
    (tmp_path / ".env").write_text("EDITION=enterprise\n")
    of_temporal = Presence(make(EDITION="community"), name="two@here", engine=Engine.TEMPORAL)
    assert of_temporal.open()

    found = faults(make(TEMPORAL_ADDRESS=temporal_server))["edition"]

    assert "one@here (to celery), two@here (to celery)" in found.found
    assert ".env" in found.hint
    of_temporal.close()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("sqlite:////srv/shop.db", "sqlite:////srv/shop.db"),
        ("mysql://u:hun7er'@host/shop?password=x", "mysql://host/shop"),
    ],
)
def test_a_database_of_another_kind_is_named_where_the_broker_would_be(
    make: MakeApp, url: str, shown: str
) -> None:
    found = faults(make(DATABASE_URL=url))

    assert f"and {shown} is none of Postgres" in found["broker"].found
    assert f"not one of Postgres: {url.partition(':')[0]!r}" in found["database"].found
