"""What load balancers and Prometheus are told: the truth, also when all connections are taken."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from uuid import uuid4

import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse
from starlette.testclient import TestClient

from jobbridge import Celery
from jobbridge.core.access import Role
from jobbridge.core.keys import JobKey, TenantId
from jobbridge.dashboard import probes
from jobbridge.dashboard.application import make_dashboard
from jobbridge.recording import JobRecorder
from jobbridge.settings import load_settings
from jobbridge.store.access.tokens import AccessStore
from jobbridge.store.counts.counts import CountStore
from jobbridge.store.workers.queue_pauses import QueuePauses
from tests.job_events import EventsOf
from tests.parity.tasks import make_app
from tests.support import CONTRACTED

pytestmark = pytest.mark.usefixtures("first_look_is_waited_for")


@pytest.fixture
def app(database_url: str) -> Iterator[Celery]:
    app = make_app(settings=load_settings({"DATABASE_URL": database_url, "TEMPORAL_ADDRESS": "127.0.0.1:1"}))
    yield app
    app.close()


@pytest.fixture
def client(app: Celery) -> TestClient:
    return TestClient(make_dashboard(app), base_url="https://jobs.example")


def scrape(client: TestClient, app: Celery, accept: str = "") -> dict[str, Metric]:
    token, _ = AccessStore(app.database).create(str(uuid4()), Role.VIEWER)
    answer = client.get("/metrics", headers={"authorization": f"Bearer {token}", "accept": accept})
    assert answer.status_code == 200
    families = parse_openmetrics(answer.text) if "openmetrics" in accept else parse(answer.text)
    return {family.name: family for family in families}


def value(families: dict[str, Metric], name: str, **labels: str) -> float:
    samples = [sample for family in families.values() for sample in family.samples]
    [found] = [sample.value for sample in samples if (sample.name, sample.labels) == (name, labels)]
    return found


def test_the_metrics_are_what_sql_counts(client: TestClient, app: Celery) -> None:
    recorder = JobRecorder(app.database)
    for end in ("completed", "completed", "failed", None):
        job = EventsOf(JobKey(tenant=TenantId("acme"), job_id=uuid4()))
        recorder.record(job.submitted())
        recorder.record(job.started())
        if end:
            recorder.record(job.completed(1) if end == "completed" else job.failed(1))
    CountStore(app.database).fold(limit=3)  # what is folded and what is not, together
    app.schedules.create("parity.total", "0 2 * * *", [[1]])
    app.enqueue("parity.total", [1], queue="numbers")
    app.enqueue("parity.total", [1], queue="numbers")
    QueuePauses(app.database).pause("numbers")

    for accept in ("text/plain", "application/openmetrics-text; version=1.0.0"):
        told = scrape(client, app, accept)

        with app.database.connection() as connection:
            rows = connection.execute(
                "SELECT runner_type, status, count(*) FROM jobs GROUP BY 1, 2"
            ).fetchall()
        assert rows
        for engine, status, jobs in rows:
            assert value(told, "jobbridge_jobs", engine=engine, status=status) == jobs
        assert value(told, "jobbridge_jobs", engine="temporal", status="failed") == 0
        assert value(told, "jobbridge_jobs_ended_total", engine="celery", status="completed") == 2
        assert value(told, "jobbridge_jobs_ended_total", engine="celery", status="failed") == 1
        assert value(told, "jobbridge_job_wait_seconds_count", engine="celery") == 4
        assert value(told, "jobbridge_job_run_seconds_count", engine="celery") == 3
        assert value(told, "jobbridge_job_run_seconds_bucket", engine="celery", le="+Inf") == 3
        assert value(told, "jobbridge_workers", engine="celery") == 0
        assert value(told, "jobbridge_schedules", state="active") == 1
        assert value(told, "jobbridge_queue_depth", engine="celery", queue="numbers") == 2
        assert 0 <= value(told, "jobbridge_queue_oldest_seconds", engine="celery", queue="numbers") < 60
        assert value(told, "jobbridge_queue_paused", queue="numbers") == 1
        assert value(told, "jobbridge_findings", severity="problem") >= 1  # nobody serves the queue
        types = {family.name: family.type for family in told.values()}
        assert (types["jobbridge_jobs"], types["jobbridge_job_wait_seconds"]) == ("gauge", "histogram")


def test_it_is_ready_when_the_database_can_be_used(
    client: TestClient, app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probes, "FRESH", 0.0)
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ready", "temporal": "not the default engine"}
    with app.database.connection() as connection:
        connection.execute(CONTRACTED)

    assert client.get("/healthz").status_code == 200
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()["reason"]) == (503, "SchemaTooNew")


def test_it_is_ready_also_when_its_pool_is_full(client: TestClient, app: Celery) -> None:
    with ExitStack() as taken:
        for _ in range(15):
            taken.enter_context(app.database.connection())

        assert client.get("/readyz").status_code == 200


def test_it_is_not_ready_without_a_database() -> None:
    app = make_app(settings=load_settings({"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}))
    client = TestClient(make_dashboard(app))

    assert client.get("/healthz").status_code == 200
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()["reason"]) == (503, "DatabaseUnavailable")
    page = client.get("/api/v1/jobs", headers={"authorization": "Bearer jbt_x"})
    assert (page.status_code, page.headers["retry-after"]) == (503, "5")
    assert "127.0.0.1" not in page.text
    app.close()
