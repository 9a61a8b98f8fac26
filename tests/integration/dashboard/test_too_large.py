"""What is too large to be a job is refused by the API with its size, and leaves nothing."""

from __future__ import annotations

from starlette.testclient import TestClient

from jobbridge.core.access import Role
from jobbridge.dashboard.application import make_dashboard
from jobbridge.settings import load_settings
from jobbridge.store.access.tokens import AccessStore
from tests.parity.tasks import make_app


def test_a_job_that_is_too_large_is_refused(database_url: str) -> None:
    told = {"DATABASE_URL": database_url, "JOB_RUNNER_PAYLOAD_LIMIT_MB": "0.01"}
    app = make_app(settings=load_settings(told))
    app.finalize()
    token, _ = AccessStore(app.database).create("ops", Role.OPERATOR)
    client = TestClient(make_dashboard(app), base_url="https://jobs.example")
    client.headers |= {"authorization": f"Bearer {token}"}

    fits = client.post("/api/v1/jobs", json={"task": "parity.total", "args": [[1]]})
    answer = client.post("/api/v1/jobs", json={"task": "parity.total", "args": ["x" * 20_000]})

    assert (fits.status_code, answer.status_code) == (201, 413)
    assert "JOB_RUNNER_PAYLOAD_LIMIT_MB allows 0.01 MB" in answer.json()["error"]
    assert len(app.jobs.page().jobs) == 1
    app.close()
