"""`jobbridge demo`: the three handlers on both engines, from nothing to documents."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from tests.acceptance.commands import JOBBRIDGE, run_jobbridge
from tests.support import clean_environment


@pytest.fixture(scope="module")
def folder(server_folder: Path) -> Path:
    folder = server_folder / "demo"
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def demo(folder: Path) -> subprocess.CompletedProcess[str]:
    """A demo on both engines, run once for this module."""
    return subprocess.run(
        [*JOBBRIDGE, "demo"], cwd=folder, env=clean_environment(), stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip


def test_every_job_completes_on_both_engines(demo: subprocess.CompletedProcess[str], folder: Path) -> None:
    assert demo.returncode == 0, demo.stdout + demo.stderr
    summary = json.loads((folder / "build/demo/summary.json").read_text())
    kinds = Counter((job["runner_type"], job["type"], job["status"]) for job in summary["jobs"])
    per_engine = {
        (kind, status): count for (engine, kind, status), count in kinds.items() if engine == "celery"
    }
    assert per_engine == {
        (kind, status): count for (engine, kind, status), count in kinds.items() if engine == "temporal"
    }
    assert per_engine[("invoice_zip", "completed")] == per_engine[("invoice_email", "completed")] == 1
    assert per_engine[("generate-invoice", "completed")] > 1
    assert {status for _, status in per_engine} == {"completed"}
    for job in summary["jobs"]:
        assert set(job) == {
            "type", "runner_type", "status", "attempts", "seconds", "job_id", "external_id"
        }  # fmt: skip
        assert job["attempts"] == 1
        assert job["seconds"] > 0


def test_the_documents_are_what_they_are_called(demo: subprocess.CompletedProcess[str], folder: Path) -> None:
    documents = [
        folder / path for path in json.loads((folder / "build/demo/summary.json").read_text())["documents"]
    ]
    starts = {".pdf": b"%PDF-", ".zip": b"PK\x03\x04"}
    for path in documents:
        content = path.read_bytes()
        assert content.startswith(starts.get(path.suffix, b"")), path
        assert str(path.relative_to(folder)) in demo.stdout
    assert Counter(path.suffix for path in documents) == {".pdf": 12, ".zip": 2, ".eml": 12}


def test_it_shows_progress_and_ends_with_a_table(demo: subprocess.CompletedProcess[str]) -> None:
    lines = demo.stdout.splitlines()
    assert any(line.startswith("temporal  generate-invoice  queued") for line in lines)
    assert any(line.split() == ["type", "engine", "status", "attempts", "duration"] for line in lines)
    assert "both engines made the same documents" in lines[-1]


def test_it_leaves_no_server_running(demo: subprocess.CompletedProcess[str], folder: Path) -> None:
    running = subprocess.run(["ps", "-eo", "args="], capture_output=True, text=True, check=True).stdout
    assert str(folder) not in running
    assert not (folder / "build/demo/postgres/data").exists()


@pytest.mark.usefixtures("demo")
def test_one_engine_alone_can_be_shown_in_the_same_folder(folder: Path) -> None:
    done = run_jobbridge("demo", "--engine", "celery", cwd=folder, timeout=110)
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads((folder / "build/demo/summary.json").read_text())
    assert {job["runner_type"] for job in summary["jobs"]} == {"celery"}
    assert not (folder / "build/demo/temporal").exists()
