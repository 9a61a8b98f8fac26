"""Record the histories that tests/unit/temporal/test_replay.py replays.

    python -m tests.integration.temporal.record_histories [NAME…]

Run it when the workflow gains a path, with a new name for what it shows; keep the old files: workflows that began
under an earlier release must still replay.
"""

from __future__ import annotations

import base64
import binascii
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from jobbridge.dev.postgres import run_postgres
from jobbridge.dev.temporal import run_temporal
from jobbridge.store.schema.migrate import migrate
from tests.integration.temporal.conftest import TIMEOUT, TemporalWorld, make_world
from tests.support import REPOSITORY, wait_until

HISTORIES = REPOSITORY / "tests" / "unit" / "temporal" / "histories"


def completed(world: TemporalWorld) -> str:
    result = world.task("parity.add").delay(1, 2)
    result.get(timeout=TIMEOUT)
    return str(result.id)


def foreign(world: TemporalWorld) -> str:
    return world.start_workflow("temporal.echo", {"word": "hello"}, tenantId="acme")


def retried(world: TemporalWorld) -> str:
    result = world.task("parity.retry_until").delay(2)
    result.get(timeout=TIMEOUT)
    return str(result.id)


def failed(world: TemporalWorld) -> str:
    return str(world.task("parity.fail").delay("out of paper").id)


def replaced(world: TemporalWorld) -> str:
    result = world.task("parity.replaced").delay(4)
    result.get(timeout=TIMEOUT)
    return str(result.id)


def requeued(world: TemporalWorld) -> str:
    return str(world.task("parity.requeue_once").delay().id)


def process_lost(world: TemporalWorld) -> str:
    return str(world.task("parity.kills_itself").delay(1000).id)


def cancelled_running(world: TemporalWorld) -> str:
    job_id = world.start_workflow("parity.long", {})
    world.wait_for_start(job_id, "long.started")
    world.signal(job_id, "cancelJob", {"reason": "not needed", "cancelledBy": "ada"})
    return job_id


def cancelled_waiting(world: TemporalWorld) -> str:
    result = world.task("parity.retry_slowly").delay()
    wait_until(lambda: world.state(result.id)["step"] == "retrying", timeout=TIMEOUT, every=0.2)
    world.signal(result.id, "cancelJob", {"reason": "enough"})
    return str(result.id)


def cancelled_natively(world: TemporalWorld) -> str:
    job_id = world.start_workflow("parity.long", {})
    world.wait_for_start(job_id, "long.started")
    world.temporal.run_cli("workflow", "cancel", "--workflow-id", job_id)
    return job_id


def due_later(world: TemporalWorld) -> str:
    result = world.task("parity.add").apply_async((1, 1), countdown=2)
    result.get(timeout=TIMEOUT)
    return str(result.id)


def progress_told(world: TemporalWorld) -> str:
    result = world.task("temporal.steady").delay()
    world.wait_for_start(result.id)
    world.signal(result.id, "updateProgress", {"progress": 60, "message": "from outside"})
    wait_until(lambda: world.row(result.id)["progress"] == 60, timeout=TIMEOUT)
    world.release(result.id)
    return str(result.id)


def parent(world: TemporalWorld) -> str:
    result = world.task("parity.fan_out").delay({"children": 2})
    result.get(timeout=TIMEOUT)
    return str(result.id)


def told_much_while_running(world: TemporalWorld) -> str:
    result = world.task("temporal.steady").delay()
    world.wait_for_start(result.id)
    _tell(world, result.id, 30)
    world.release(result.id)
    return str(result.id)


def suggested_retried(world: TemporalWorld) -> str:
    result = world.task("temporal.retries").delay(9)
    result.get(timeout=TIMEOUT)
    return str(result.id)


def suggested_waiting(world: TemporalWorld) -> str:
    result = world.task("parity.add").apply_async((1, 1), countdown=3600)
    wait_until(lambda: world.state(result.id)["step"] == "scheduled", timeout=TIMEOUT, every=0.2)
    _tell(world, result.id, 50)
    world.signal(result.id, "cancelJob", {"reason": "enough"})
    return str(result.id)


def suggested_parent(world: TemporalWorld) -> str:
    result = world.task("parity.fan_out").delay({"children": 2, "each": {"holds": [0]}})
    wait_until(lambda: world.state(result.id)["step"] == "waiting", timeout=TIMEOUT, every=0.2)
    _tell(world, result.id, 50)
    world.release(result.id)
    result.get(timeout=TIMEOUT)
    return str(result.id)


def _tell(world: TemporalWorld, workflow_id: str, number: int) -> None:
    for progress in range(1, number + 1):
        document = {"progress": progress}
        world.app.delivery("temporal").client.call(
            lambda client: client.get_workflow_handle(workflow_id).signal("updateProgress", document)  # noqa: B023
        )
    wait_until(lambda: world.state(workflow_id)["progress"] == number, timeout=TIMEOUT, every=0.2)


SCENARIOS: tuple[Callable[[TemporalWorld], str], ...] = (
    completed, foreign, retried, failed, replaced, requeued, process_lost, cancelled_running, cancelled_waiting,
    cancelled_natively, due_later, progress_told, parent, told_much_while_running,
)  # fmt: skip
#: With a server that suggests to continue as new after a few events. What is called `released_…` was recorded by a
#: release that did not do so then, and cannot be recorded anew.
SUGGESTED: tuple[Callable[[TemporalWorld], str], ...] = (
    suggested_retried,
    suggested_waiting,
    suggested_parent,
)
SUGGESTS_SOON = {"limit.historyCount.suggestContinueAsNew": 40}


def record(names: Sequence[str] = ()) -> None:
    """Record the scenarios of these names; all if there are none."""
    HISTORIES.mkdir(exist_ok=True)
    for scenarios, limits in ((SCENARIOS, {}), (SUGGESTED, SUGGESTS_SOON)):
        wanted = [each for each in scenarios if not names or each.__name__ in names]
        if wanted:
            with _world(limits) as world:
                for scenario in wanted:
                    _record(world, scenario)


def _record(world: TemporalWorld, scenario: Callable[[TemporalWorld], str]) -> None:
    workflow_id = scenario(world)
    wait_until(lambda: world.status(workflow_id) != "RUNNING", timeout=60, every=0.2)
    run_id: str | None = None
    number = 0
    while run_id != "":  # the last run first; the others are what it was continued from
        history = world.app.delivery("temporal").client.call(
            lambda client: client.get_workflow_handle(workflow_id, run_id=run_id).fetch_history()  # noqa: B023
        )
        document = _without_paths(json.loads(history.to_json()))
        path = HISTORIES / f"{scenario.__name__}{f'_{number}' if number else ''}.json"
        path.write_text(json.dumps({"workflowId": workflow_id, **document}, indent=1) + "\n")
        print(path.name, len(document["events"]), "events")
        started = history.events[0].workflow_execution_started_event_attributes
        run_id, number = started.continued_execution_run_id, number + 1


@contextmanager
def _world(limits: Mapping[str, object]) -> Iterator[TemporalWorld]:
    with tempfile.TemporaryDirectory(prefix="jobbridge-histories-") as name, ExitStack() as started:
        folder = Path(name)
        folder.chmod(0o755)
        postgres = started.enter_context(run_postgres(folder / "postgres", is_durable=False))
        temporal = started.enter_context(
            run_temporal(log_path=folder / "temporal.log", dynamic_config=limits)
        )
        url = postgres.create_database("histories")
        migrate(url)
        with ExitStack() as workers:
            world = make_world(url, temporal, folder, workers)
            world.worker("-c", "2")
            yield world


def _without_paths(document: Any) -> Any:
    """Take this machine's paths out of tracebacks, which Temporal keeps as text and in payloads."""
    if isinstance(document, dict):
        return {name: _cleaned(name, _without_paths(value)) for name, value in document.items()}
    if isinstance(document, list):
        return [_without_paths(item) for item in document]
    return _cleaned_text(document) if isinstance(document, str) else document


def _cleaned(name: str, value: Any) -> Any:
    if name != "data" or not isinstance(value, str):
        return value
    try:
        text = base64.b64decode(value, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return value
    return base64.b64encode(_cleaned_text(text).encode()).decode()


def _cleaned_text(text: str) -> str:
    for path, name in ((str(REPOSITORY), "/app"), (sys.prefix, "/venv"), (sys.base_prefix, "/python")):
        text = text.replace(path, name)
    return text


if __name__ == "__main__":
    record(sys.argv[1:])
