"""Jobs can be searched by at Temporal where the namespace knows the attributes, and run where it does not."""

from __future__ import annotations

import json
import uuid
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from temporalio.api.workflowservice.v1 import RegisterNamespaceRequest
from temporalio.service import RPCError

from jobbridge.cli import temporal_setup
from jobbridge.cli.root import run
from jobbridge.core.keys import Engine
from jobbridge.temporal.wire import search_attributes
from tests.parity import secret_tasks  # noqa: F401  (its tasks are the app's)
from tests.parity.conftest import make_world
from tests.support import wait_until

TIMEOUT = 60


def test_setup_adds_them_once_and_jobs_carry_them(
    database_url: str,
    temporal_server: str,
    tmp_path: Path,
    task_queue: str,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    namespace = f"attributes-{uuid.uuid4().hex[:8]}"
    with ExitStack() as started:
        outside = make_world(Engine.TEMPORAL, database_url, tmp_path, task_queue, request, started)

        def client_call(work: Any) -> Any:
            return outside.app.delivery(Engine.TEMPORAL).client.call(work)

        async def make(client: Any) -> None:
            retention = Duration(seconds=86_400)
            await client.workflow_service.register_namespace(
                RegisterNamespaceRequest(namespace=namespace, workflow_execution_retention_period=retention)
            )

        client_call(make)
        (tmp_path / "own").mkdir()
        world = make_world(
            Engine.TEMPORAL,
            database_url,
            tmp_path / "own",
            task_queue,
            request,
            started,
            TEMPORAL_NAMESPACE=namespace,
        )
        client = world.app.delivery(Engine.TEMPORAL).client
        wait_until(lambda: _has_namespace(world), timeout=TIMEOUT)
        world.worker("-P", "solo")
        echo = world.task("secret_echo")

        assert echo.delay("without").get(timeout=TIMEOUT) == {"echo": "without"}
        world.app.schedules.create(
            "parity.secret_echo", "2 seconds", {"secret": "before"}, name="before", tenant="eldest"
        )
        wait_until(lambda: world.rows("tenant = 'eldest'"), timeout=TIMEOUT)
        monkeypatch.setattr(temporal_setup, "load_app", lambda name: world.app)
        added = []
        for _ in range(2):
            assert run(["temporal-setup", "--json"]) == 0
            added.append(json.loads(capsys.readouterr().out)["added"])
        assert added == [[key.name for key in search_attributes.ALL], []]
        monkeypatch.setattr(search_attributes, "AGAIN", 0.0)  # it was asked a moment ago
        wait_until(lambda: client.call(search_attributes.missing) == [], timeout=TIMEOUT)

        sent = echo.apply_async(("with",), tenant="acme")
        assert sent.get(timeout=TIMEOUT) == {"echo": "with"}
        named = "JobbridgeTenant = 'acme' AND JobbridgeJobName = 'parity.secret_echo'"
        query = f"{named} AND JobbridgeRootId = '{sent.id}' AND JobbridgeJobId = '{sent.id}'"

        async def search(client: Any) -> list[str]:
            return [each.id async for each in client.list_workflows(query)]

        wait_until(lambda: client.call(search) == [sent.id], timeout=TIMEOUT)

        made = world.app.schedules.create(
            "parity.secret_echo", "2 seconds", {"secret": "fired"}, name="fires", tenant="emca"
        )

        async def search_fired(client: Any) -> list[str]:
            found = client.list_workflows(
                "JobbridgeTenant = 'emca' AND JobbridgeJobName = 'parity.secret_echo'"
            )
            return [each.id async for each in found]

        fired = wait_until(lambda: client.call(search_fired), timeout=TIMEOUT)
        assert all(each.startswith(f"schedule-{made.schedule_id}-") for each in fired)
        jobs = wait_until(lambda: world.rows("tenant = 'emca' AND status = 'completed'"), timeout=TIMEOUT)
        world.app.schedules.delete("fires")

        async def search_eldest(client: Any) -> list[str]:
            return [each.id async for each in client.list_workflows("JobbridgeTenant = 'eldest'")]

        wait_until(
            lambda: client.call(search_eldest), timeout=TIMEOUT, message="what was there before is told"
        )
        # Each fire has a job of its own, and is found by that, as what is sent is.
        for job in jobs:
            of_job = f"JobbridgeTenant = 'emca' AND JobbridgeJobId = '{job['job_id']}'"
            by_id = f"{of_job} AND JobbridgeRootId = '{job['job_id']}'"

            async def search_job(client: Any, query: str = by_id) -> list[str]:
                return [each.id async for each in client.list_workflows(query)]

            known_as = [job["external_id"]]
            wait_until(lambda: client.call(search_job) == known_as, timeout=TIMEOUT)  # noqa: B023


def _has_namespace(world: Any) -> bool:
    try:
        return bool(world.app.delivery(Engine.TEMPORAL).client.call(search_attributes.missing))
    except RPCError:
        return False
