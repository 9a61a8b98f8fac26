"""How the API answers whatever it is asked: methods, hints, filters, and what a body may not say of a job."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from starlette.testclient import TestClient

from jobbridge import Celery
from jobbridge.core.access import Role
from jobbridge.core.keys import TenantId
from jobbridge.dashboard.application import make_dashboard
from jobbridge.settings import load_settings
from jobbridge.store.access.tokens import AccessStore
from tests.parity.tasks import make_app
from tests.support import CONTRACTED

TOTAL = {"task": "parity.total", "args": [[1, 2]]}


@pytest.fixture
def app(database_url: str) -> Iterator[Celery]:
    app = make_app(settings=load_settings({"DATABASE_URL": database_url, "TEMPORAL_ADDRESS": "127.0.0.1:1"}))
    app.finalize()
    yield app
    app.close()


@pytest.fixture
def client(app: Celery) -> TestClient:
    return client_of(app)


def client_of(app: Celery, role: Role = Role.ADMIN, tenant: TenantId | None = None) -> TestClient:
    token, _ = AccessStore(app.database).create(str(uuid4()), role, tenant=tenant)
    headers = {"authorization": f"Bearer {token}"}
    return TestClient(make_dashboard(app), base_url="https://jobs.example", headers=headers)


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/api/v1/jobs", "GET, HEAD, POST"),
        ("/api/v1/jobs/x/public-link", "DELETE, POST"),
        ("/api/v1/jobs/x/cancel", "POST"),
        ("/api/v1/counts", "GET, HEAD"),
        ("/healthz", "GET, HEAD"),
    ],
)
def test_another_method_is_told_all_that_there_are(client: TestClient, path: str, methods: str) -> None:
    for method in ("PATCH", "OPTIONS"):
        answer = client.request(method, path)

        assert (answer.status_code, answer.headers["allow"]) == (405, methods)
        assert answer.json()["hint"]


def test_head_is_get_without_the_body(app: Celery, client: TestClient) -> None:
    job = client.post("/api/v1/jobs", json=TOTAL).json()["job"]["job_id"]

    for path in ("/jobs", f"/jobs/{job}", f"/jobs/{uuid4()}", "/queues", "/openapi.json", "/jobs?statsu=x"):
        got, head = client.get(f"/api/v1{path}"), client.head(f"/api/v1{path}")
        assert head.status_code == got.status_code, path
        assert head.headers["content-type"] == got.headers["content-type"]
    assert client_of(app, Role.VIEWER).head("/api/v1/tasks").status_code == 403
    assert client.head(f"/api/v1/jobs/{job}/cancel").status_code == 405
    document = client.get("/api/v1/openapi.json").json()
    assert not [path for path, operations in document["paths"].items() if "head" in operations]


def test_every_refusal_says_what_to_do(app: Celery) -> None:
    client, bound = client_of(app), client_of(app, Role.OPERATOR, TenantId("acme"))
    viewer = client_of(app, Role.VIEWER)
    job = client.post("/api/v1/jobs", json=TOTAL, headers={"idempotency-key": "one"}).json()["job"]["job_id"]
    client.post(f"/api/v1/jobs/{job}/cancel")
    answers = [
        (400, client.get("/api/v1/events?engine=rabbit")),
        (401, client.get("/api/v1/jobs", headers={"authorization": "Bearer jbt_x"})),
        (403, viewer.post("/api/v1/jobs", json=TOTAL)),
        (403, bound.post("/api/v1/jobs", json=TOTAL | {"tenant": "other"})),
        (404, client.get("/api/v1/nothing")),
        (404, client.get("/api/v2/jobs", headers={"accept": "text/html"})),
        (404, client.post("/api/v1/jobs", json={"task": "parity.totl"})),
        (409, client.post(f"/api/v1/jobs/{job}/retry")),
        (409, client.post("/api/v1/jobs", json=TOTAL | {"priority": 1}, headers={"idempotency-key": "one"})),
        (413, client.post("/api/v1/jobs", json={"task": "x" * 1_100_000})),
        (415, client.post("/api/v1/jobs", data=TOTAL)),
        (422, client.post("/api/v1/jobs", json={"task": "parity.total"})),
        (422, client.post("/api/v1/jobs", json=TOTAL | {"kwargs": {"nothing": 1}})),
        (422, client.get("/api/v1/jobs?limit=0")),
    ]

    for status, answer in answers:
        assert answer.status_code == status, answer.text
        told = answer.json()
        assert told["error"], status
        assert told["hint"], told
    assert "as_new" in answers[7][1].json()["hint"]


def test_a_database_of_another_release_is_told_as_such(app: Celery, client: TestClient) -> None:
    with app.database.connection() as connection:
        connection.execute(CONTRACTED)
    later = make_app(settings=load_settings({"DATABASE_URL": app.settings.database_url or ""}))

    answer = TestClient(make_dashboard(later), headers=client.headers).get("/api/v1/jobs")

    later.close()
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "60")
    assert "jobbridge migrate" in answer.json()["hint"]


def test_the_api_takes_the_times_that_the_page_takes(app: Celery, client: TestClient) -> None:
    job = client.post("/api/v1/jobs", json=TOTAL).json()["job"]["job_id"]
    row = app.jobs.find(UUID(job))
    assert row is not None
    at = row.created_at.replace(second=0, microsecond=0)

    def found(query: str) -> bool:
        answer = client.get(f"/api/v1/jobs?{query}")
        assert answer.status_code == 200, answer.text
        is_shown = job in client.get(f"/jobs?{query}").text
        assert is_shown == bool(answer.json()["jobs"]), query
        return is_shown

    for text in (at.strftime("%Y-%m-%dT%H:%M"), f"{at:%Y-%m-%dT%H:%M:%S}Z", f"{at:%Y-%m-%d}"):
        assert found(f"from={text}")
        assert not found(f"to={text}")
    assert found(f"from=2026-01-01&to={at + timedelta(minutes=1):%Y-%m-%dT%H:%M}")
    assert not found(f"from={at + timedelta(minutes=1):%Y-%m-%dT%H:%M}%2B00:00")


def test_a_body_cannot_say_what_the_row_says_of_its_job(app: Celery) -> None:
    """A job runs again with the data of its row: that must be what was checked."""
    bound = client_of(app, Role.OPERATOR, TenantId("acme"))

    for name in ("data", "argsrepr", "kwargsrepr", "retry_of", "schedule", "traceparent"):
        answer = bound.post("/api/v1/jobs", json=TOTAL | {"metadata": {name: {"tenantId": "other"}}})
        assert answer.status_code == 422, name
        assert name in answer.text


def test_pages_hold_each_job_once_while_others_are_made(app: Celery, client: TestClient) -> None:
    """Jobs of one transaction have one time, and a page may end among them."""
    with app.database.transaction() as connection, app.enqueue_on(connection):
        before = {str(app.enqueue("parity.total", [[1]]).job_id) for _ in range(25)}
    seen: list[str] = []
    place = ""
    while True:
        page = client.get(f"/api/v1/jobs?limit=4{place}").json()
        seen += [job["job_id"] for job in page["jobs"]]
        app.enqueue("parity.total", [[2]])
        if page["next"] is None:
            break
        place = f"&before={page['next']}"

    assert len(seen) == len(set(seen))
    assert set(seen) == before
