"""Record the histories that tests/unit/temporal/test_replay.py replays.

    make histories
    python -m tests.integration.temporal.record_histories [NAME…]

Each version of the package has a folder. Record when the version is raised, which freezes the folders before it, and
when the workflow gains a path, with a new name for what it shows. Workflows that began under an earlier release must
still replay.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from celery import chord

from jobbridge import __version__
from jobbridge.dev.postgres import run_postgres
from jobbridge.dev.temporal import run_temporal
from jobbridge.store.schema.migrate import migrate
from jobbridge.temporal.wire import search_attributes
from tests.integration.temporal.conftest import TIMEOUT, TemporalWorld, make_world
from tests.support import REPOSITORY, wait_until

HISTORIES = REPOSITORY / "tests" / "unit" / "temporal" / "histories"
#: In the folder of a version that is out: what its files were; as `sha256sum` writes it.
SUMS = "SHA256SUMS"


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


def chord_part(world: TemporalWorld) -> str:
    """It ends last, so its end sends the body."""
    hold = world.task("temporal.steady").s()
    result = chord([world.task("parity.add").s(1, 2), hold], world.task("parity.total").s()).delay()
    part = result.parent.results[1].id
    world.wait_for_start(part)
    world.release(part)
    result.get(timeout=TIMEOUT)
    return str(part)


def chord_body(world: TemporalWorld) -> str:
    result = chord(
        [world.task("parity.add").s(each, 2) for each in range(3)], world.task("parity.total").s()
    ).delay()
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


def fired(world: TemporalWorld) -> str:
    """By a schedule: it names its job itself."""
    world.app.delivery("temporal").client.call(search_attributes.register)
    world.app.schedules.create("parity.add", "2 seconds", {"x": 1, "y": 2}, name="recorded")
    (job, *_) = wait_until(
        lambda: world.rows("type = 'parity.add' AND status = 'completed'"), timeout=TIMEOUT
    )
    world.app.schedules.delete("recorded")
    return str(job["external_id"])


def _tell(world: TemporalWorld, workflow_id: str, number: int) -> None:
    for progress in range(1, number + 1):
        document = {"progress": progress}
        world.app.delivery("temporal").client.call(
            lambda client: client.get_workflow_handle(workflow_id).signal("updateProgress", document)  # noqa: B023
        )
    wait_until(lambda: world.state(workflow_id)["progress"] == number, timeout=TIMEOUT, every=0.2)


SCENARIOS: tuple[Callable[[TemporalWorld], str], ...] = (
    completed, foreign, retried, failed, replaced, requeued, process_lost, cancelled_running, cancelled_waiting,
    cancelled_natively, due_later, progress_told, parent, chord_part, chord_body, told_much_while_running,
)  # fmt: skip
#: With a server that suggests to continue as new after a few events, which 0.1.0 did not heed.
SUGGESTED: tuple[Callable[[TemporalWorld], str], ...] = (
    suggested_retried,
    suggested_waiting,
    suggested_parent,
)
#: In a namespace that knows the search attributes of jobs.
NAMED: tuple[Callable[[TemporalWorld], str], ...] = (fired,)
SUGGESTS_SOON = {"limit.historyCount.suggestContinueAsNew": 40}


def record(names: Sequence[str] = ()) -> None:
    """Record the scenarios of these names; all if there are none."""
    freeze(HISTORIES, but=__version__)
    folder_for(HISTORIES, __version__)
    for scenarios, limits in ((SCENARIOS, {}), (SUGGESTED, SUGGESTS_SOON), (NAMED, {})):
        wanted = [each for each in scenarios if not names or each.__name__ in names]
        if wanted:
            with _world(limits) as world:
                for scenario in wanted:
                    _record(world, scenario)


def folder_for(histories: Path, version: str) -> Path:
    """Give the folder of a version, which is made if it is not there.

    Raises:
        SystemExit: That version is out, and its histories stay as they are.
    """
    folder = histories / version
    if (folder / SUMS).exists():
        raise SystemExit(
            f"{version} is out: raise the version in pyproject.toml and jobbridge/__init__.py first."
        )
    folder.mkdir(exist_ok=True)
    return folder


def freeze(histories: Path, *, but: str) -> None:
    """Write down what the histories of the other versions are: they are out, and must not change any more."""
    for folder in histories.iterdir():
        if not folder.is_dir() or folder.name == but or (folder / SUMS).exists():
            continue
        lines = [
            f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n"
            for path in sorted(folder.glob("*.json"))
        ]
        (folder / SUMS).write_text("".join(lines))


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
        path = HISTORIES / __version__ / f"{scenario.__name__}{f'_{number}' if number else ''}.json"
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
