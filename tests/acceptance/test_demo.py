"""`jobbridge demo`: the twelve handlers on both engines, from nothing to documents."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.acceptance.commands import JOBBRIDGE, descendants, is_alive, run_jobbridge_afresh, start
from tests.support import wait_until

#: All handlers but `generate-invoice`, which runs for each client.
ONCE = {
    "asset_import",
    "cleanup-ai-session-keys",
    "cleanup-temporary-workflow-forms",
    "credit-reconciliation",
    "expired-credits",
    "expiring-credits-notification",
    "invoice-approval",
    "invoice_email",
    "invoice_zip",
    "reconcile-bucket-usage",
    "renew-microsoft-calendar-webhooks",
    "verify-google-calendar-pubsub",
}


@pytest.mark.long
def test_both_engines_run_the_handlers_and_make_the_same_documents(open_folder: Path) -> None:
    done = run_jobbridge_afresh("demo", "--dashboard-port", "0", cwd=open_folder, timeout=110)

    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads((open_folder / "build/demo/summary.json").read_text())
    assert_every_job_completed(summary["jobs"])
    assert_documents_are_what_they_are_called(open_folder, summary["documents"], done.stdout)
    lines = done.stdout.splitlines()
    assert any(line.startswith("temporal  generate-invoice") for line in lines)
    assert any(line.split() == ["type", "engine", "status", "attempts", "duration"] for line in lines)
    assert "both engines made the same documents" in lines[-1]
    assert re.search(r"Dashboard, while this runs: http://127\.0\.0\.1:\d+/", done.stdout)
    assert_nothing_is_left(open_folder)


def assert_every_job_completed(jobs: list[dict[str, Any]]) -> None:
    for job in jobs:
        assert set(job) == {
            "type", "runner_type", "status", "attempts", "seconds", "job_id", "external_id"
        }  # fmt: skip
        assert (job["status"], job["attempts"]) == ("completed", 1)
        assert job["seconds"] > 0
    kinds = Counter((job["runner_type"], job["type"]) for job in jobs)
    for engine in ("celery", "temporal"):
        assert kinds[(engine, "generate-invoice")] == 6
        assert {
            kind: count for (of, kind), count in kinds.items() if of == engine and count == 1
        } == dict.fromkeys(ONCE, 1)
    assert sum(kinds.values()) == 2 * (6 + len(ONCE))


def assert_documents_are_what_they_are_called(folder: Path, documents: list[str], told: str) -> None:
    starts = {".pdf": b"%PDF-", ".zip": b"PK\x03\x04", ".csv": b"\xef\xbb\xbfrow,outcome,reason,"}
    for name in documents:
        path = folder / name
        assert path.read_bytes().startswith(starts.get(path.suffix, b"")), name
        assert name in told
    assert Counter(Path(name).suffix for name in documents) == {".pdf": 12, ".zip": 2, ".csv": 2, ".eml": 22}


def assert_nothing_is_left(folder: Path) -> None:
    running = subprocess.run(["ps", "-eo", "args="], capture_output=True, text=True, check=True).stdout
    assert str(folder) not in running
    assert not (folder / "build/demo/postgres/data").exists()


@pytest.mark.long
def test_a_demo_that_serves_has_something_on_each_page_until_ctrl_c(open_folder: Path) -> None:
    argv = [*JOBBRIDGE, "demo", "--engine", "celery", "--serve", "--dashboard-port", "0"]
    with start(argv, cwd=open_folder) as demo:
        [address] = wait_until(
            lambda: re.findall(r"Dashboard: (\S+)   Ctrl-C stops everything", demo.log()), timeout=60
        )

        jobs = wait_until(lambda: shows(address + "jobs?status=failed", "has no billing address"))
        schedules = shows(address + "schedules", "the new texts are being checked")
        os.kill(demo.pid, signal.SIGINT)

        assert demo.wait(timedelta(seconds=60)) == 0, demo.log()
    assert jobs
    assert schedules
    assert_nothing_is_left(open_folder)


def shows(address: str, text: str) -> bool:
    return text in httpx.get(address, headers={"accept": "text/html"}).text


def test_a_demo_that_is_stopped_in_the_middle_leaves_nothing_running(open_folder: Path) -> None:
    earlier = open_folder / "build" / "demo" / "temporal" / "invoice.pdf"
    own = open_folder / "build" / "demo" / "notes.txt"
    for path in (earlier, own):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")

    with start([*JOBBRIDGE, "demo", "--engine", "celery", "--dashboard-port", "0"], cwd=open_folder) as demo:
        wait_until(lambda: "Starting the workers" in demo.log())
        started = descendants(demo.pid)

        os.kill(demo.pid, signal.SIGTERM)

        assert demo.wait(timedelta(seconds=20)) == 130
        assert "Interrupted." in demo.log()
        assert "Traceback" not in demo.log()
    assert not earlier.exists(), "what an earlier demo made is not shown as this one's"
    assert own.exists(), "and nothing else is removed"
    assert started
    assert [pid for pid in started if is_alive(pid)] == []
    assert_nothing_is_left(open_folder)
