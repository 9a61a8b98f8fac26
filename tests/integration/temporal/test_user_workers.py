"""An application's own workflows and activities, on further task queues of the worker that carries its jobs."""

from __future__ import annotations

import json
import os
import signal
import uuid
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from jobbridge.dev.process import DevServerError
from jobbridge.temporal.worker.user_queues import UserQueue
from jobbridge.temporal.worker.user_workers import resolve
from tests.integration.temporal.conftest import TIMEOUT, TemporalWorld
from tests.integration.temporal.user_app import Mailer, TenantWorkflow, create_tenant, verify_domain
from tests.support import REPOSITORY, clean_environment, wait_until, worker_process

APP = "tests.integration.temporal.user_app"


def stats_of(world: TemporalWorld) -> dict[str, Any]:
    replies = world.app.control.inspect(timeout=5, limit=1).stats() or {}
    return dict(next(iter(replies.values()))["user_queues"])


def run_workflow(world: TemporalWorld, name: str, queue: str, *arguments: Any) -> Any:
    workflow_id = f"{name}-{uuid.uuid4().hex}"
    inputs = [part for argument in arguments for part in ("--input", json.dumps(argument))]
    world.cli(
        "workflow", "start", "--type", name, "--workflow-id", workflow_id, "--task-queue", queue, *inputs
    )
    return world.result(workflow_id)


def test_the_worker_serves_workflows_and_activities_beside_jobs_and_a_broken_queue_stops_no_other(
    own_world: TemporalWorld,
) -> None:
    worker = own_world.start(APP, **own_world.environment)

    made = run_workflow(own_world, "TenantWorkflow", "tenant-workflows", "acme")
    assert made == ["tenant acme", "domain acme", "welcome acme"]
    assert own_world.task("parity.add").delay(1, 2).get(timeout=TIMEOUT) == 3

    threads = (own_world.notes / "verify_domain").read_text()
    assert threads.startswith("user-portal-domain-workflows")
    states = wait_until(lambda: _if_settled(stats_of(own_world)))
    assert {name: state["state"] for name, state in states.items() if name != "broken-workflows"} == {
        "tenant-workflows": "polling",
        "portal-domain-workflows": "polling",
        "email-domain-workflows": "polling",
    }
    assert states["tenant-workflows"]["serves"] == ["TenantWorkflow", "create_tenant"]
    assert states["tenant-workflows"]["max_concurrent_activities"] == 3
    assert "BrokenWorkflow" in states["broken-workflows"]["state"]
    assert "Polling the task queue 'broken-workflows' failed" in worker.log()
    assert "Serving Temporal's task queue 'portal-domain-workflows': verify-domain." in worker.log()

    os.kill(worker.pid, signal.SIGTERM)
    assert worker.wait(timedelta(seconds=20)) == 0


def _if_settled(states: dict[str, Any]) -> dict[str, Any]:
    return states if "has not answered" not in str(states) else {}


def test_a_wrong_declaration_stops_the_worker_before_it_takes_anything(
    own_world: TemporalWorld, tmp_path: Path
) -> None:
    (tmp_path / "wrong.py").write_text(
        "from jobbridge import Celery, UserQueue\n"
        "app = Celery('wrong')\n"
        "app.conf.temporal_workers = [UserQueue('tenants', workflows=['nowhere.workflows:Tenant'])]\n"
    )
    environment = clean_environment({**own_world.environment, "PYTHONPATH": f"{tmp_path}:{REPOSITORY}"})
    argv = ["-m", "jobbridge.temporal.worker", "-A", "wrong"]

    with worker_process(argv, name="wrong", log_path=tmp_path / "log", env=environment, ready=None) as worker:
        try:
            code = worker.wait(timedelta(seconds=TIMEOUT))
        except DevServerError as error:
            raise AssertionError(worker.log()) from error

    assert code == 3
    assert "'nowhere.workflows:Tenant' cannot be imported" in worker.log()
    assert "Hint: Correct the name" in worker.log()


def _names(module: str, *names: str) -> Sequence[str]:
    return [f"{module}:{name}" for name in names]


def test_strings_name_classes_functions_methods_and_lists() -> None:
    served = resolve(
        UserQueue(
            "tenants",
            workflows=_names(APP, "TenantWorkflow"),
            activities=[create_tenant, *_names(APP, "DOMAIN_ACTIVITIES", "mailer.welcome")],
        )
    )

    assert served.workflows == [TenantWorkflow]
    assert served.activities[:2] == [create_tenant, verify_domain]
    assert served.names == ["TenantWorkflow", "create_tenant", "verify-domain", "welcome"]
    assert served.has_plain_activities
    assert not resolve(UserQueue("tenants", activities=[create_tenant])).has_plain_activities


@pytest.mark.parametrize(
    ("queue", "message"),
    [
        (UserQueue("q", workflows=_names(APP, "nothing")), "'.*:nothing' is not there"),
        (UserQueue("q", workflows=_names("no_such_module", "W")), "cannot be imported: No module"),
        (UserQueue("q", workflows=[Mailer]), "is no workflow"),
        (UserQueue("q", activities=[print]), "is no activity"),
    ],
)
def test_what_cannot_be_served_is_named(queue: UserQueue, message: str) -> None:
    from jobbridge.errors import ConfigurationError

    with pytest.raises(ConfigurationError, match=message) as caught:
        resolve(queue)
    assert caught.value.hint
