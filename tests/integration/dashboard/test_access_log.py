"""The server's lines about requests: no query, and no secret of a link."""

from __future__ import annotations

import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path

import pytest

from jobbridge.dev.process import free_port
from tests.support import clean_environment, wait_until, worker_process


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_access_is_logged_without_queries_and_links(
    database_url: str, tmp_path: Path, log_format: str
) -> None:
    port = free_port()
    with worker_process(
        ["-m", "jobbridge.cli", "dashboard", "--port", str(port), "-A", "tests.parity.app"],
        name="dashboard",
        log_path=tmp_path / "dashboard.log",
        env=clean_environment(
            {
                "DATABASE_URL": database_url,
                "PARITY_FOLDER": str(tmp_path),
                "JOB_RUNNER_LOG_FORMAT": log_format,
            }
        ),
        ready="Uvicorn running on",
    ) as dashboard:
        for path in ("/jobs?text=hun7er&token=hun7er", "/public/jobs/hun7er-secret", "/sign-in?next=/hun7er"):
            with suppress(urllib.error.HTTPError):  # that it is refused is no matter here
                urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30).close()
        wait_until(lambda: "GET /sign-in" in dashboard.log() or None, message="the last line")
        log = dashboard.log()

    assert "GET /jobs" in log
    assert "GET /public/jobs/" in log
    assert "hun7er" not in log
    assert "JOBBRIDGE_SECRET_KEY is not set" in log
