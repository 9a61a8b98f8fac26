"""What opentelemetry-instrumentation-celery and sentry-sdk see of jobs on both engines."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import StartWorker
from tests.support import clean_environment, wait_until

pytestmark = pytest.mark.long

_SEND_WITH_SPANS = """
from opentelemetry import trace
from tests.strangers.spans import app, first, instrument
instrument()
with trace.get_tracer("web").start_as_current_span("request"):
    sent = first.delay()
error = app.AsyncResult(sent.get(timeout=30)).get(timeout=30, propagate=False)
assert error.args == ("no",), error
"""

_SEND_WITH_SENTRY = """
import sentry_sdk
from tests.strangers.sentry import divide, watch
watch()
with sentry_sdk.start_transaction(op="http.server", name="request"):
    sent = divide.delay(7)
assert type(sent.get(timeout=30, propagate=False)) is ZeroDivisionError
print(sent.id)
"""


@pytest.fixture(params=["celery", "temporal"])
def settings(request: pytest.FixtureRequest, database_url: str, task_queue: str) -> dict[str, str]:
    is_temporal = request.param == "temporal"
    return {
        "DATABASE_URL": database_url,
        "JOB_RUNNER_TYPE": request.param,
        "TEMPORAL_JOB_TASK_QUEUE": task_queue,
        "TEMPORAL_ADDRESS": request.getfixturevalue("temporal_server") if is_temporal else "127.0.0.1:1",
    }


def worked(module: str, program: str, settings: dict[str, str], request: pytest.FixtureRequest) -> str:
    """Run a program beside a worker of its app; give what it said."""
    start: StartWorker = request.getfixturevalue(f"{settings['JOB_RUNNER_TYPE']}_worker")
    start(module, "-P", "prefork", **settings)
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=clean_environment(settings), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def lines(path: Path, number: int) -> list[dict[str, Any]]:
    """Wait until the file has so many lines: what a worker tells of a task, it tells after its result is there."""

    def read() -> list[dict[str, Any]]:
        found = [json.loads(line) for line in path.read_text().splitlines()]
        assert len(found) == number, found
        return found

    return wait_until(read)


def test_opentelemetry_instrumentation_celery(
    settings: dict[str, str], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    settings["STRANGERS_SPANS"] = str(tmp_path / "spans")
    worked("tests.strangers.spans", _SEND_WITH_SPANS, settings, request)

    spans = {each["context"]["span_id"]: each for each in lines(tmp_path / "spans", 7)}

    def way(span: dict[str, Any] | None) -> list[str]:
        """Name a span, and those above it."""
        return [span["name"], *way(spans.get(span["parent_id"]))] if span else []

    assert len({each["context"]["trace_id"] for each in spans.values()}) == 1
    ends = sorted(spans.values(), key=lambda each: len(way(each)))
    assert way(ends[-1])[::-1] == [
        "request",
        "apply_async/strangers.first", "run/strangers.first",
        "apply_async/strangers.second", "run/strangers.second",
        "apply_async/strangers.second", "run/strangers.second",  # the second attempt, which the first one sent
    ]  # fmt: skip
    assert ends[-1]["status"] == {"status_code": "ERROR", "description": "no"}


def test_sentry_sdk(settings: dict[str, str], tmp_path: Path, request: pytest.FixtureRequest) -> None:
    settings["STRANGERS_EVENTS"] = str(tmp_path / "events")
    task_id = worked("tests.strangers.sentry", _SEND_WITH_SENTRY, settings, request)

    # The request, two attempts, and the error of the second one: a retry is none.
    told = lines(tmp_path / "events", 4)

    (error,) = [each for each in told if each.get("type") != "transaction"]
    assert error["exception"]["values"][-1]["type"] == "ZeroDivisionError"
    assert error["exception"]["values"][-1]["mechanism"]["type"] == "celery"
    assert (error["transaction"], error["tags"]["celery_task_id"]) == ("strangers.divide", task_id)
    assert error["extra"]["celery-job"] == {"task_name": "strangers.divide", "args": [7], "kwargs": {}}
    transactions = [each["transaction"] for each in told if each.get("type") == "transaction"]
    assert sorted(transactions) == ["request", "strangers.divide", "strangers.divide"]
    assert len({each["contexts"]["trace"]["trace_id"] for each in told}) == 1
