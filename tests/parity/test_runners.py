"""The runner API: the same calls and the same answers on both engines."""

from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from jobbridge import (
    CeleryJobRunner,
    JobRunner,
    JobRunnerFactory,
    JobService,
    Outcome,
    ScheduleOptions,
    TemporalJobRunner,
    get_available_job_handlers,
    initialize_job_handlers_for_worker,
)
from jobbridge.core.keys import Engine
from jobbridge.core.status import JobStatus
from jobbridge.errors import (
    DatabaseUnavailable,
    InvalidJobData,
    JobNotFound,
    TenantRequired,
    UnknownHandler,
    UnsupportedOption,
)
from jobbridge.settings import load_settings
from tests.parity.conftest import World
from tests.parity.tasks import make_app
from tests.support import wait_until

TIMEOUT = 30
USER = uuid.uuid4()


@pytest.fixture
def runner(world: World) -> JobRunner:
    return JobRunnerFactory(world.app).get_runner()


def wait_for(runner: JobRunner, job_id: uuid.UUID, status: JobStatus) -> Any:
    def reached() -> Any:
        report = runner.get_job_status(job_id)
        assert report is not None
        assert report.status is status, report
        return report

    return wait_until(reached, timeout=TIMEOUT)


def test_a_job_is_scheduled_and_its_status_tells_how_it_went(world: World, runner: JobRunner) -> None:
    options = ScheduleOptions(
        tenant="acme", user_id=USER, priority=7, metadata={"invoice": 4, "data": "else"}
    )

    job = runner.schedule_job("parity.greet", {"name": "Ada", "times": 2}, options)

    assert job.outcome is Outcome.CREATED
    assert job.external_id == str(job.job_id)
    report = wait_for(runner, job.job_id, JobStatus.COMPLETED)
    assert (report.name, report.tenant_id, report.runner_type) == ("parity.greet", "acme", world.engine)
    assert (report.progress, report.attempt, report.error) == (100, 1, None)
    assert report.result["greeting"] == "Hello Ada"
    assert report.metadata == {
        "data": {"name": "Ada", "times": 2},
        "invoice": 4,
    }  # the job's data is what was sent
    assert report.created_at <= report.started_at <= report.completed_at
    row = world.row(str(job.job_id))
    assert (row["user_id"], row["priority"]) == (USER, 7)


def test_a_jobs_status_is_for_its_tenant_only(runner: JobRunner) -> None:
    job = runner.schedule_job("parity.greet", {"name": "Ada", "tenantId": "acme"})

    assert runner.get_job_status(job.job_id, "acme") is not None
    assert runner.get_job_status(str(job.job_id), "acme") is not None
    assert runner.get_job_status(job.job_id, "zeta") is None
    assert runner.get_job_status(uuid.uuid4()) is None
    assert runner.cancel_job(job.job_id, "zeta") is False


def test_an_outage_is_an_error_and_not_the_lack_of_a_job(engine: Engine) -> None:
    settings = load_settings({"DATABASE_URL": "postgresql://u@127.0.0.1:1/none", "JOB_RUNNER_TYPE": engine})
    runner = JobRunnerFactory(make_app(settings=settings)).get_runner()

    with pytest.raises(DatabaseUnavailable):
        runner.get_job_status(uuid.uuid4())
    with pytest.raises(DatabaseUnavailable):
        runner.cancel_job(uuid.uuid4())
    with pytest.raises(DatabaseUnavailable):
        runner.start()
    assert runner.is_healthy() is False
    runner.stop()


def test_a_job_for_later_waits_and_can_be_cancelled(world: World, runner: JobRunner) -> None:
    job = runner.schedule_job_at("parity.add", [1, 2], datetime.now(UTC) + timedelta(hours=1))
    wait_for(runner, job.job_id, JobStatus.SCHEDULED)

    assert runner.cancel_job(job.job_id, reason="not needed", cancelled_by="Ada") is True
    assert runner.cancel_job(job.job_id) is False

    row = world.row(str(job.job_id))
    assert (row["status"], row["cancel_reason"], row["cancelled_by"]) == ("cancelled", "not needed", "Ada")


def test_a_job_starts_at_its_time_and_not_before(world: World, runner: JobRunner) -> None:
    at = datetime.now(UTC) + timedelta(seconds=1)

    job = runner.schedule_job_at("parity.add", [1, 2], at)

    report = wait_for(runner, job.job_id, JobStatus.COMPLETED)
    assert report.run_at == at
    assert report.started_at >= at


def test_a_running_job_is_cancelled_and_never_turns_completed(world: World, runner: JobRunner) -> None:
    job = runner.schedule_job("parity.long")
    wait_for(runner, job.job_id, JobStatus.PROCESSING)

    assert runner.cancel_job(job.job_id) is True

    wait_for(runner, job.job_id, JobStatus.CANCELLED)
    assert world.lines(job.job_id, "long.finished") == []


def test_a_job_that_expired_before_it_could_start_does_not_run(own_world: World) -> None:
    runner = JobRunnerFactory(own_world.app).get_runner()
    expires = timedelta(milliseconds=100)
    job = runner.schedule_job("parity.add", [1, 2], {"expires": expires})
    kept = runner.schedule_job("parity.add", [1, 2], {"expires": datetime.now(UTC) + timedelta(hours=1)})
    wait_until(lambda: own_world.row(str(job.job_id))["expires_at"] < datetime.now(UTC))

    own_world.worker()

    wait_for(runner, kept.job_id, JobStatus.COMPLETED)
    wait_for(runner, job.job_id, JobStatus.EXPIRED)
    assert own_world.lines(job.job_id, "add") == []


def test_a_job_goes_to_the_queue_that_it_names(own_world: World) -> None:
    runner = JobRunnerFactory(own_world.app).get_runner()
    queue = f"reports-{uuid.uuid4().hex[:8]}"

    job = runner.schedule_job("parity.echo", {"value": 1}, {"queue": queue})

    own_world.worker("-Q", queue)
    wait_for(runner, job.job_id, JobStatus.COMPLETED)
    assert own_world.row(str(job.job_id))["queue"] == queue


def test_the_options_engine_wins_over_the_runners(own_world: World) -> None:
    runner = CeleryJobRunner(own_world.app)

    default = runner.schedule_job("parity.echo", {"value": 1})
    chosen = runner.schedule_job("parity.echo", {"value": 1}, {"engine": own_world.engine})

    assert own_world.row(str(default.job_id))["runner_type"] == "celery"
    assert own_world.row(str(chosen.job_id))["runner_type"] == own_world.engine


def test_a_singleton_is_deduplicated_and_replaced(own_world: World) -> None:
    runner = JobRunnerFactory(own_world.app).get_runner()
    options = ScheduleOptions(singleton_key="one")

    first = runner.schedule_job("parity.add", [1, 2], options)
    again = runner.schedule_job("parity.add", [1, 2], options)
    third = runner.schedule_job("parity.add", [1, 2], {"singleton_key": "one", "singleton_policy": "replace"})

    assert (again.job_id, again.external_id) == (first.job_id, first.external_id)
    assert again.outcome is Outcome.DEDUPLICATED
    assert "no worker" in (first.warning or "")  # none runs here
    assert (third.outcome, third.job_id == first.job_id) == (Outcome.REPLACED, False)


def test_what_cannot_be_sent_is_refused_and_leaves_nothing(own_world: World) -> None:
    runner = JobRunnerFactory(own_world.app).get_runner()

    with pytest.raises(UnknownHandler, match=r"Did you mean 'parity\.greet'"):
        runner.schedule_job("parity.gret")
    with pytest.raises(InvalidJobData):
        runner.schedule_job("parity.greet", {"name": 1}, {"tenant": "acme"})
    with pytest.raises(TenantRequired):
        runner.schedule_job("parity.greet", {"name": "Ada"})
    with pytest.raises(UnsupportedOption):
        runner.schedule_job_at("parity.echo", None, datetime(2030, 1, 1))
    assert own_world.rows() == []


def test_a_handler_that_is_registered_can_be_scheduled(world: World, runner: JobRunner) -> None:
    def shout(ctx: Any, data: dict[str, Any]) -> str:
        return str(data["word"]).upper()

    name = f"parity.shout-{uuid.uuid4().hex[:8]}"
    task = runner.register_handler(name, shout, priority=3)

    job = runner.schedule_job(name, {"word": "hey"})

    assert task.name == name
    assert name in {spec.name for spec in get_available_job_handlers(world.app)}
    assert world.row(str(job.job_id))["priority"] == 3
    runner.cancel_job(job.job_id)


def test_a_runner_starts_is_healthy_and_stops(world: World) -> None:
    app = make_app(settings=load_settings(world.environment), include=["tests.parity.tasks"])
    runner = JobRunnerFactory(app).get_runner()

    runner.start()

    assert runner.get_runner_type() is world.engine
    assert isinstance(runner, JobRunner)
    assert isinstance(runner, CeleryJobRunner if world.engine is Engine.CELERY else TemporalJobRunner)
    assert runner.is_healthy()
    runner.stop()
    assert "parity.greet" in initialize_job_handlers_for_worker(app)


def test_without_temporal_its_runner_is_not_healthy(database_url: str) -> None:
    settings = load_settings({"DATABASE_URL": database_url, "TEMPORAL_ADDRESS": "127.0.0.1:1"})
    runner = JobRunnerFactory(make_app(settings=settings)).get_runner("temporal")

    assert runner.is_healthy() is False
    runner.stop()


def test_async_callers_have_the_same_calls(own_world: World) -> None:
    async def use(runner: JobRunner) -> tuple[Any, ...]:
        with (
            psycopg.connect(own_world.database_url) as connection,
            own_world.app.enqueue_on(connection),
        ):
            await runner.aschedule_job("parity.echo", {"value": 1})
            connection.rollback()
        job = await runner.aschedule_job_at(
            "parity.echo", {"value": 1}, datetime.now(UTC) + timedelta(hours=1)
        )
        report = await runner.aget_job_status(job.job_id)
        cancelled = await runner.acancel_job(job.job_id, reason="enough")
        return report, cancelled, await runner.ais_healthy()

    runner = JobRunnerFactory(own_world.app).get_runner()

    report, cancelled, is_healthy = asyncio.run(use(runner))

    assert report.status in {JobStatus.SCHEDULED, JobStatus.PENDING}
    assert (cancelled, is_healthy) == (True, True)
    assert len(own_world.rows()) == 1, "what was sent in the transaction went with it"


def test_the_service_creates_describes_and_lists_jobs(own_world: World) -> None:
    service = JobService(JobRunnerFactory(own_world.app).get_runner())
    jobs = [service.create_job("parity.echo", {"value": n}, {"tenant": "acme"}) for n in range(5)]
    service.create_job("parity.echo", {"value": 9}, {"tenant": "zeta"})
    own_world.app.cancel_job(jobs[0].job_id)

    row = service.update_job(jobs[1].job_id, "acme", metadata={"note": "checked"})
    detail_id = service.create_job_detail(jobs[1].job_id, "acme", "review", result={"by": "Ada"})
    first = service.list_jobs("acme", limit=3)
    second = service.list_jobs("acme", limit=3, before=first.next)

    assert row.metadata["note"] == "checked"
    assert row.metadata["data"]["kwargs"] == {"value": 1}
    (detail,) = service.get_job_details(jobs[1].job_id, "acme")
    assert (detail.detail_id, detail.step_name, detail.result) == (detail_id, "review", {"by": "Ada"})
    ids = [job.job_id for job in reversed(jobs)]
    assert [job.job_id for job in (*first.jobs, *second.jobs)] == ids
    assert second.next is None
    cancelled = service.list_jobs("acme", statuses=["cancelled"], name="parity.echo").jobs
    assert [job.job_id for job in cancelled] == [jobs[0].job_id]
    assert len(service.list_jobs(engine=own_world.engine).jobs) == 6
    assert service.get_job(jobs[1].job_id, "zeta") is None
    with pytest.raises(JobNotFound):
        service.update_job(jobs[1].job_id, "zeta", metadata={})
    with pytest.raises(JobNotFound):
        service.create_job_detail(jobs[1].job_id, "zeta", "review")


def test_a_task_that_chose_its_engine_keeps_it_whatever_the_runner(
    own_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_world.task("echo"), "engine", "celery", raising=False)

    job = TemporalJobRunner(own_world.app).schedule_job("parity.echo", [1])

    assert own_world.row(str(job.job_id))["runner_type"] == "celery"
