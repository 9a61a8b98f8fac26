"""The workflow replays what real runs of it left: a change that breaks running workflows fails here.

A folder for each version of the package that carried jobs. Those of versions that are out stay as they were recorded:
workflows of theirs still run somewhere. `make histories` records the present version's.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer, WorkflowRunner
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner

from jobbridge import __version__
from jobbridge.temporal.wire.client import DATA_CONVERTER
from jobbridge.temporal.worker.pollers import OWN_RUNNER, SANDBOX
from jobbridge.temporal.workflows.generic_job import GenericJobWorkflow
from tests.integration.temporal.record_histories import (
    NAMED,
    SCENARIOS,
    SUGGESTED,
    SUMS,
    folder_for,
    freeze,
)

HISTORIES = Path(__file__).parent / "histories"
VERSIONS = sorted(path.name for path in HISTORIES.iterdir() if path.is_dir())
PATHS = sorted(HISTORIES.rglob("*.json"))


def _sums(folder: Path) -> Mapping[str, str]:
    """Give what a version's histories were when it was out; as `sha256sum` writes and checks it."""
    lines = (folder / SUMS).read_text().splitlines()
    return {name: told for told, name in (line.split("  ") for line in lines)}


def test_the_present_version_has_a_history_of_each_path() -> None:
    recorded = {path.stem for path in (HISTORIES / __version__).glob("*.json")}

    missing = {each.__name__ for each in (*SCENARIOS, *SUGGESTED, *NAMED)} - recorded

    assert not missing, (
        f"{__version__} has no histories of these: `make histories`, and keep those that are there"
    )


@pytest.mark.parametrize("version", [version for version in VERSIONS if version != __version__])
def test_histories_of_a_version_that_is_out_are_as_they_were_recorded(version: str) -> None:
    folder = HISTORIES / version

    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.json")}

    assert found
    assert found == _sums(folder)


def test_histories_of_a_version_that_is_out_are_not_recorded_anew(tmp_path: Path) -> None:
    (tmp_path / "0.1.0").mkdir()
    (tmp_path / "0.1.0" / "completed.json").write_text("{}")

    freeze(tmp_path, but="0.2.0")

    digest = hashlib.sha256(b"{}").hexdigest()
    assert _sums(tmp_path / "0.1.0") == {"completed.json": digest}
    with pytest.raises(SystemExit, match="is out"):
        folder_for(tmp_path, "0.1.0")
    assert folder_for(tmp_path, "0.2.0").is_dir()


#: The sandbox finds what is not deterministic, such as a clock; workers do without.
SANDBOXED = SandboxedWorkflowRunner(restrictions=SANDBOX)


@pytest.mark.parametrize("runner", [SANDBOXED, OWN_RUNNER], ids=["sandbox", "worker"])
@pytest.mark.parametrize("path", PATHS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_recorded_history_replays(path: Path, runner: WorkflowRunner) -> None:
    document = json.loads(path.read_text())
    history = WorkflowHistory.from_json(document.pop("workflowId"), document)
    replayer = Replayer(
        workflows=[GenericJobWorkflow],
        data_converter=DATA_CONVERTER,
        workflow_runner=runner,
    )

    result = asyncio.run(replayer.replay_workflow(history, raise_on_replay_failure=False))

    assert result.replay_failure is None
