"""The dashboard over a database that was the original's: there a tenant is a uuid, and what is none is nobody."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID, uuid4

import pytest
from starlette.testclient import TestClient

from jobbridge import Celery
from jobbridge.core.access import Role
from jobbridge.core.keys import TenantId
from jobbridge.dashboard.application import make_dashboard
from jobbridge.dev.postgres import PostgresServer
from jobbridge.settings import load_settings
from jobbridge.store.access.tokens import AccessStore
from jobbridge.store.schema.migrate import migrate
from tests.integration.dashboard.test_pages import ASKED, BODIES, BROWSER, address
from tests.originals import TENANT, create_originals
from tests.parity.tasks import make_app


@pytest.fixture(scope="module")
def app(postgres: PostgresServer) -> Iterator[Celery]:
    url = postgres.create_database(f"test_adopted_{uuid4().hex}")
    create_originals(url)
    migrate(url)
    app = make_app(settings=load_settings({"DATABASE_URL": url, "TEMPORAL_ADDRESS": "127.0.0.1:1"}))
    app.finalize()
    yield app
    app.close()


@pytest.fixture(scope="module")
def client(app: Celery) -> TestClient:
    return TestClient(make_dashboard(app), base_url="https://jobs.example", follow_redirects=False)


def bearer(app: Celery, tenant: str | None = None) -> dict[str, str]:
    token, _ = AccessStore(app.database).create(
        str(uuid4()), Role.ADMIN, tenant=TenantId(tenant) if tenant else None
    )
    return {"authorization": f"Bearer {token}"}


def test_a_tenant_that_cannot_be_is_answered_as_one_that_is_not_there(
    app: Celery, client: TestClient
) -> None:
    headers = bearer(app) | BROWSER
    for rule in ASKED:
        for method in rule.methods:
            answers = [
                client.request(
                    method,
                    f"{address(rule, 'nobodys')}?tenant={tenant}",
                    headers=headers,
                    json=BODIES.get(rule.name),
                )
                for tenant in ("acme", str(uuid4()))
            ]
            if rule.name == "api_send":
                assert [answer.status_code for answer in answers] == [422, 201]
                continue
            assert answers[0].status_code == answers[1].status_code, rule.name
            assert answers[0].status_code < 500, (rule.name, answers[0].text)


def test_a_token_of_a_tenant_that_cannot_be_sees_nothing(app: Celery, client: TestClient) -> None:
    headers = bearer(app, "acme") | BROWSER
    for rule in ASKED:
        for method in rule.methods:
            answer = client.request(method, address(rule), headers=headers, json=BODIES.get(rule.name))
            assert answer.status_code < 500, (rule.name, answer.text)
            assert str(TENANT) not in answer.text


def test_the_jobs_of_a_tenant_are_its_own(app: Celery, client: TestClient) -> None:
    bound = client.get("/api/v1/jobs?limit=200", headers=bearer(app, str(TENANT))).json()["jobs"]
    asked = client.get(f"/api/v1/jobs?limit=200&tenant={TENANT}", headers=bearer(app)).json()["jobs"]

    assert [job["job_id"] for job in bound] == [job["job_id"] for job in asked]
    assert {job["tenant"] for job in bound} == {str(TENANT)}
    assert len({UUID(job["job_id"]) for job in bound}) == len(bound) == 60
    detail = client.get(f"/api/v1/jobs/{bound[0]['job_id']}", headers=bearer(app, str(TENANT)))
    assert detail.status_code == 200


@pytest.mark.parametrize("written", ["{tenant}", "urn:uuid:{tenant}", "{{{tenant}}}", "{bare}", "{upper}"])
def test_a_tenant_is_the_same_however_it_is_written(app: Celery, client: TestClient, written: str) -> None:
    named = written.format(tenant=TENANT, bare=TENANT.hex, upper=str(TENANT).upper())
    job_id = client.get("/api/v1/jobs", headers=bearer(app, str(TENANT))).json()["jobs"][0]["job_id"]

    for headers, query in ((bearer(app, named), ""), (bearer(app), f"?tenant={named}")):
        answer = client.get(f"/api/v1/jobs/{job_id}{query}", headers=headers)
        assert (answer.status_code, answer.json().get("tenant")) == (200, str(TENANT))
        assert client.get(f"/jobs/{job_id}{query}", headers=headers | BROWSER).status_code == 200
        links = client.delete(f"/api/v1/jobs/{job_id}/public-link{query}", headers=headers)
        assert links.status_code == 200
