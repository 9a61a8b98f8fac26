from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jobbridge import (
    Celery,
    JobRunnerFactory,
    ScheduleOptions,
    SingletonPolicy,
    get_available_job_handlers,
    register_all_job_handlers,
)
from jobbridge.app.execute.handlers import declared, job
from jobbridge.core.handlers import HandlerSpec, JobHandlerRegistry
from jobbridge.core.keys import Engine
from jobbridge.errors import ConfigurationError, EngineUnavailable, UnsupportedOption
from jobbridge.settings import load_settings

CLOCK = datetime(2030, 1, 1, tzinfo=UTC)


def app_with(**settings: str) -> Celery:
    return Celery(
        "unit", settings=load_settings({"DATABASE_URL": "postgresql://127.0.0.1:1/none", **settings})
    )


# -- options


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"run_at": datetime(2030, 1, 1)}, "run_at is 2030-01-01T00:00:00, which has no time zone"),
        ({"run_at": "tomorrow"}, "run_at is 'tomorrow'"),
        ({"expires": timedelta(seconds=-1)}, "expires is -1 day"),
        ({"priority": 10}, "priority is 10"),
        ({"priority": True}, "priority is True"),
        ({"user_id": "Ada"}, "user_id is 'Ada', which is no uuid"),
        ({"metadata": ["x"]}, "metadata is"),
        ({"queue": ""}, "queue is ''"),
        ({"tenant": 7}, "tenant is 7"),
        ({"engine": "sidekiq"}, "engine is 'sidekiq'"),
        ({"singleton_key": "a\0b"}, "singleton_key is"),
        ({"singleton_policy": "raise"}, "there is no singleton_key"),
        ({"singletonKey": "x"}, "There is no option 'singletonKey'. Did you mean 'singleton_key'?"),
    ],
)
def test_an_option_that_cannot_be_honoured_is_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(UnsupportedOption) as caught:
        ScheduleOptions.of(options)

    assert told in str(caught.value)
    assert caught.value.hint


def test_options_may_be_a_mapping_or_nothing() -> None:
    given = {"run_at": CLOCK, "singleton_key": "k", "singleton_policy": SingletonPolicy.RAISE, "priority": 0}

    assert ScheduleOptions.of(given) == ScheduleOptions(**given)
    assert ScheduleOptions.of(None) == ScheduleOptions()


# -- the factory


@pytest.mark.parametrize(
    ("settings", "argument", "engine"),
    [
        ({}, None, Engine.CELERY),
        ({"EDITION": "enterprise"}, None, Engine.TEMPORAL),
        ({"EDITION": "enterprise", "JOB_RUNNER_TYPE": "pgboss"}, None, Engine.CELERY),
        ({"JOB_RUNNER_TYPE": "celery"}, "temporal", Engine.TEMPORAL),
        ({"JOB_RUNNER_TYPE": "temporal"}, "pgboss", Engine.CELERY),
    ],
)
def test_argument_wins_over_environment_and_that_over_edition(
    settings: dict[str, str], argument: str | None, engine: Engine
) -> None:
    runner = JobRunnerFactory(app_with(**settings)).get_runner(argument)

    assert runner.get_runner_type() is engine


def test_threads_that_ask_at_once_get_one_runner() -> None:
    factory, barrier = JobRunnerFactory(app_with()), threading.Barrier(20)

    def ask(_: int) -> int:
        barrier.wait()
        return id(factory.get_runner())

    with ThreadPoolExecutor(20) as pool:
        assert len(set(pool.map(ask, range(20)))) == 1


def test_a_forked_child_gets_its_own_runner() -> None:
    factory = JobRunnerFactory(app_with())
    mine = factory.get_runner()
    child = os.fork()
    if child == 0:
        os._exit(0 if factory.get_runner() is not mine else 1)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert factory.get_runner() is mine


def test_a_process_has_one_runner_until_it_is_reset() -> None:
    factory = JobRunnerFactory(app_with())
    first = factory.get_runner("celery")

    with pytest.raises(ConfigurationError, match="'celery' already, and 'temporal'"):
        factory.get_runner("temporal")
    factory.reset()

    assert factory.get_runner("temporal") is not first


def test_a_runner_that_there_is_not_is_refused() -> None:
    with pytest.raises(UnsupportedOption, match="sidekiq"):
        JobRunnerFactory(app_with()).get_runner("sidekiq")


def test_without_temporalio_its_runner_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Celery, "delivery_factories", {})

    with pytest.raises(EngineUnavailable) as caught:
        JobRunnerFactory(app_with()).get_runner("temporal")
    assert "pip install" in caught.value.hint


# -- handlers


@pytest.fixture
def enterprise_handler() -> Any:
    @job("unit.audit", enterprise_only=True)
    def audit(ctx: object, data: object) -> None: ...

    yield "unit.audit"
    declared.unregister("unit.audit")


def test_an_enterprise_handler_is_offered_in_its_edition_or_when_it_is_asked_for(
    enterprise_handler: str,
) -> None:
    community, enterprise = app_with(), app_with(EDITION="enterprise")

    assert enterprise_handler not in register_all_job_handlers(community)
    assert enterprise_handler in register_all_job_handlers(enterprise)
    assert enterprise_handler in register_all_job_handlers(community, include_enterprise=True)
    assert enterprise_handler in {spec.name for spec in get_available_job_handlers(community)}
    assert enterprise_handler not in register_all_job_handlers(enterprise, include_enterprise=False)
    assert declared.is_initialized


def test_the_registry_tells_what_it_has() -> None:
    async def render(ctx: object, data: object) -> None: ...

    registry = JobHandlerRegistry()
    registry.register(HandlerSpec(name="render", function=render, schedule="0 3 * * *", priority=4))
    registry.mark_initialized()

    assert list(registry.all()) == ["render"]
    assert registry.config("render")["priority"] == 4
    assert "function" not in registry.config("render")
    stats = registry.stats()
    assert (stats.handlers, stats.asynchronous, stats.scheduled, stats.is_initialized) == (1, 1, 1, True)
    registry.clear()
    assert registry.stats().is_initialized is False
