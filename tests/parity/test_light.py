"""Light delivery: a part of these tests, on Temporal without workflows."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from jobbridge.core.keys import Engine
from jobbridge.dev.postgres import PostgresServer
from tests.parity.conftest import World, make_world
from tests.parity.test_celery_features import (
    test_a_chord_with_a_failing_part_fails_its_body,
    test_a_large_payload,
    test_replace_again_and_again,
    test_revoke_with_terminate_stops_running_code,
)
from tests.parity.test_durable import (
    test_a_job_calls_others_and_gets_their_results,
    test_a_job_sleeps_and_goes_on_with_what_it_recorded,
    test_an_event_wakes_the_job_that_waits_for_it,
)
from tests.parity.test_execution import (
    test_a_countdown_is_kept,
    test_a_handler_that_always_fails_ends_failed_after_its_attempts,
    test_a_handler_that_fails_twice_and_then_works_shows_three_attempts,
    test_a_job_that_kills_its_process_each_time_is_stopped,
    test_a_killed_pool_process_is_replaced_and_the_job_runs_again,
    test_a_killed_worker_loses_nothing,
    test_a_warm_shutdown_finishes_what_runs,
    test_an_error_is_failed_everywhere_with_its_traceback,
    test_chain_group_and_chord,
    test_reject_with_requeue_runs_again,
    test_replace_by_a_chain_ends_with_the_chains_result,
    test_retry_makes_further_attempts_of_the_same_job,
    test_sending_in_the_callers_transaction,
    test_sending_the_same_id_twice_runs_once,
)
from tests.parity.test_fan_out import (
    test_a_parent_completes_when_all_its_children_have,
    test_cancelling_a_parent_cancels_the_children_that_have_not_ended,
)
from tests.parity.test_kill_points import have_die_afterwards
from tests.parity.test_retrying import test_a_failed_job_runs_again_as_the_same_job

__all__ = [
    "test_a_chord_with_a_failing_part_fails_its_body",
    "test_a_countdown_is_kept",
    "test_a_failed_job_runs_again_as_the_same_job",
    "test_a_handler_that_always_fails_ends_failed_after_its_attempts",
    "test_a_handler_that_fails_twice_and_then_works_shows_three_attempts",
    "test_a_job_calls_others_and_gets_their_results",
    "test_a_job_sleeps_and_goes_on_with_what_it_recorded",
    "test_a_job_that_kills_its_process_each_time_is_stopped",
    "test_a_killed_pool_process_is_replaced_and_the_job_runs_again",
    "test_a_killed_worker_loses_nothing",
    "test_a_large_payload",
    "test_a_parent_completes_when_all_its_children_have",
    "test_a_warm_shutdown_finishes_what_runs",
    "test_an_error_is_failed_everywhere_with_its_traceback",
    "test_an_event_wakes_the_job_that_waits_for_it",
    "test_cancelling_a_parent_cancels_the_children_that_have_not_ended",
    "test_chain_group_and_chord",
    "test_reject_with_requeue_runs_again",
    "test_replace_again_and_again",
    "test_replace_by_a_chain_ends_with_the_chains_result",
    "test_retry_makes_further_attempts_of_the_same_job",
    "test_revoke_with_terminate_stops_running_code",
    "test_sending_in_the_callers_transaction",
    "test_sending_the_same_id_twice_runs_once",
]

_LIGHT = {"TEMPORAL_LIGHT": "true"}


@pytest.fixture(scope="module")
def world(
    postgres: PostgresServer,
    migrated_template: str,
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("world-light")
    url = postgres.create_database("world_light", template=migrated_template)
    with ExitStack() as started:
        task_queue = f"world-{uuid.uuid4().hex[:8]}"
        world = make_world(Engine.TEMPORAL, url, folder, task_queue, request, started, **_LIGHT)
        world.worker("-P", "prefork")
        yield world


@pytest.fixture
def own_world(
    database_url: str, tmp_path: Path, task_queue: str, request: pytest.FixtureRequest
) -> Iterator[World]:
    with ExitStack() as started:
        yield make_world(Engine.TEMPORAL, database_url, tmp_path, task_queue, request, started, **_LIGHT)


@pytest.mark.timeout(300)
def test_it_dies_after_the_end_is_written_and_before_it_is_acknowledged(own_world: World) -> None:
    have_die_afterwards(own_world)


def test_they_went_without_workflows(world: World) -> None:
    world.task("add").delay(1, 2).get(timeout=30)

    # The body of a chord whose part failed never does; a job that waits for others is woken as a workflow.
    went = "external_run_id IS NOT NULL AND type NOT IN ('parity.durable.waits', 'parity.durable.calls')"
    assert world.rows(went)
    assert world.rows(f"{went} AND external_id NOT LIKE 'activity/%%'") == []
