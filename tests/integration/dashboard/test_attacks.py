"""What an attacker tries who has a way in: another tenant's ids, secrets in texts, forged forms, odd values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import Mount, Route
from starlette.testclient import TestClient

from jobbridge import Celery, tenant_context
from jobbridge.app.results.artifacts import Artifact
from jobbridge.core.access import Role
from jobbridge.core.keys import SYSTEM_TENANT, JobKey, TenantId
from jobbridge.core.schedules.policies import schedule_id_for
from jobbridge.dashboard.access.identity import LocalAuthenticator
from jobbridge.dashboard.application import RULES, make_dashboard
from jobbridge.dev.postgres import PostgresServer
from jobbridge.errors import UnsupportedOption
from jobbridge.recording import JobRecorder
from jobbridge.settings import load_settings
from jobbridge.store.access.tokens import AccessStore
from jobbridge.store.workers.queue_pauses import QueuePauses
from tests.integration.dashboard.test_pages import BROWSER
from tests.job_events import EventsOf
from tests.parity.tasks import make_app

ACME, OTHER = TenantId("acme"), TenantId("acme-2")
PASSWORD = "hunter2-of-the-database"


@pytest.fixture(scope="module")
def app(postgres: PostgresServer, migrated_template: str) -> Iterator[Celery]:
    url = postgres.create_database(f"test_attacks_{uuid4().hex}", template=migrated_template)
    app = make_app(settings=load_settings({"DATABASE_URL": url, "TEMPORAL_ADDRESS": "127.0.0.1:1"}))
    app.conf.job_artifacts = [_artifacts_of]
    app.finalize()
    yield app
    app.close()


def _artifacts_of(app: Celery, job: Any) -> list[Artifact]:
    return [Artifact(artifact_id="a", name="a.html", media_type="text/html", size=1, read=b"<script>".strip)]


@pytest.fixture(scope="module")
def access(app: Celery) -> AccessStore:
    return AccessStore(app.database)


@pytest.fixture
def client(app: Celery) -> TestClient:
    return TestClient(make_dashboard(app), base_url="https://jobs.example", follow_redirects=False)


def bearer(access: AccessStore, role: Role = Role.VIEWER, tenant: TenantId | None = None) -> dict[str, str]:
    token, _ = access.create(str(uuid4()), role, tenant=tenant)
    return {"authorization": f"Bearer {token}"}


def made(app: Celery, tenant: TenantId = ACME, **more: Any) -> EventsOf:
    job = EventsOf(JobKey(tenant=tenant, job_id=uuid4()))
    JobRecorder(app.database).record(job.submitted(**more))
    return job


# -- the route table is all there is


def served_beside_the_table(application: FastAPI) -> list[str]:
    """Name the routes that no rule is for, whatever kind they are."""
    ruled = {(rule.path, rule.name, method) for rule in RULES for method in rule.methods}
    beside = []
    for route in application.routes:
        methods = (getattr(route, "methods", None) or {"*"}) - {"HEAD"}
        asked = {(getattr(route, "path", ""), getattr(route, "name", ""), method) for method in methods}
        if not asked <= ruled:
            beside.append(getattr(route, "path", repr(route)))
    return beside


def test_every_route_has_a_rule_beside_the_assets(app: Celery) -> None:
    application = make_dashboard(app)

    assert served_beside_the_table(application) == ["/static"]
    assert application.user_middleware == []


def test_a_route_that_is_added_without_a_rule_is_found(app: Celery) -> None:
    application = make_dashboard(app)

    async def answer() -> None: ...

    application.add_api_route("/api/v1/new", answer)
    application.add_api_websocket_route("/socket", answer)
    application.mount("/inner", Starlette(routes=[Route("/x", answer)]))

    assert served_beside_the_table(application) == ["/static", "/api/v1/new", "/socket", "/inner"]


# -- another tenant


def test_a_parent_of_another_tenant_is_not_named(
    app: Celery, client: TestClient, access: AccessStore
) -> None:
    system = made(app, SYSTEM_TENANT).key.job_id
    child = made(app, parent_id=system, root_id=system).key.job_id
    grandchild = made(app, parent_id=child, root_id=system).key.job_id
    bound, all_of_them = bearer(access, Role.OPERATOR, ACME), bearer(access)

    for path in (f"/jobs/{child}", f"/api/v1/jobs/{child}", "/api/v1/jobs", f"/jobs/{grandchild}"):
        assert str(system) not in client.get(path, headers=bound | BROWSER).text, path
    cancelled = client.post(f"/api/v1/jobs/{grandchild}/cancel", headers=bound)
    assert cancelled.json()["job"]["parent_id"] == str(child)
    assert cancelled.json()["job"]["root_id"] is None
    assert str(child) in client.get(f"/jobs/{grandchild}", headers=bound | BROWSER).text
    for path in (f"/jobs/{child}", f"/api/v1/jobs/{child}"):
        assert str(system) in client.get(path, headers=all_of_them | BROWSER).text, path


def test_why_a_job_waits_or_runs_is_told_without_the_names_of_workers(
    app: Celery, client: TestClient, access: AccessStore
) -> None:
    bound = bearer(access, Role.VIEWER, ACME) | BROWSER
    running, waiting = made(app), made(app, queue="of-this-test")
    JobRecorder(app.database).record(running.started(worker="celery@host-of-all"))
    QueuePauses(app.database).pause("of-this-test", by="ada-of-operations", note="moving host-of-all")

    pages = [client.get(f"/jobs/{job.key.job_id}", headers=bound).text for job in (running, waiting)]

    assert "It runs." in pages[0]
    assert "Its queue is paused: workers take nothing new from it." in pages[1]
    for text in ("host-of-all", "ada-of-operations"):
        assert text not in "".join(pages)


def test_the_id_of_a_workflow_leads_to_the_job_of_that_tenant_alone(
    app: Celery, client: TestClient, access: AccessStore
) -> None:
    job = made(app)
    with app.database.connection() as connection:
        connection.execute("UPDATE jobs SET external_id = 'invoice-42' WHERE job_id = %s", (job.key.job_id,))

    def asked(tenant: TenantId | None, query: str = "") -> int:
        path = f"/api/v1/jobs/invoice-42{query}"
        return client.get(path, headers=bearer(access, tenant=tenant)).status_code

    assert [asked(None), asked(ACME), asked(None, "?tenant=acme")] == [200, 200, 200]
    assert [asked(OTHER), asked(None, "?tenant=acme-2")] == [404, 404]


@pytest.mark.parametrize("name", ["data", "schedule", "fan_out"])
def test_what_a_job_is_run_again_with_cannot_be_put_under_it(
    app: Celery, client: TestClient, access: AccessStore, name: str
) -> None:
    body = {"task": "parity.total", "args": [[1]], "metadata": {name: {"tenantId": OTHER}}}

    answer = client.post("/api/v1/jobs", json=body, headers=bearer(access, Role.OPERATOR, ACME))

    assert answer.status_code == 422
    assert name in answer.text


@pytest.mark.parametrize(
    "tenant",
    [
        "a%",
        "a_me",
        "'; DROP TABLE jobs --",
        "<b>x</b>",
        "a/b",
        "a\nb",
        "é",
        "e\u0301",
        "ACME",
        "acm",
        " acme",
    ],
)
def test_a_tenant_is_that_name_and_no_other(
    app: Celery, client: TestClient, access: AccessStore, tenant: str
) -> None:
    mine, theirs = made(app, TenantId(tenant)).key.job_id, made(app).key.job_id
    headers = bearer(access, Role.ADMIN, TenantId(tenant))

    jobs = client.get("/api/v1/jobs?limit=200", headers=headers).json()["jobs"]
    pages = [
        client.get(path, headers=headers | BROWSER)
        for path in ("/", "/jobs", f"/jobs/{mine}", "/jobs.csv", "/jobs.json")
    ]

    assert {UUID(job["job_id"]) for job in jobs} == {mine}
    assert [page.status_code for page in pages] == [200] * 5
    assert "<b>x" not in "".join(page.text for page in pages[:3])
    assert client.get(f"/jobs/{theirs}", headers=headers).status_code == 404


def test_of_a_fault_of_the_installation_nobody_learns_where_it_is(database_url: str) -> None:
    """A broker elsewhere is away: its client's error tells of the connection."""
    settings = load_settings({"DATABASE_URL": database_url, "TEMPORAL_ADDRESS": "127.0.0.1:1"})
    app = make_app(settings=settings, broker="amqp://guest:guest@127.0.0.1:1//")
    app.conf.broker_transport_options = {"max_retries": 0}
    app.conf.task_publish_retry = False
    app.finalize()
    job = EventsOf(JobKey(tenant=ACME, job_id=uuid4()))
    recorder = JobRecorder(app.database)
    recorder.record(job.submitted(type="parity.total", metadata={"data": {"args": [[1]]}}))
    recorder.record(job.started())
    recorder.record(job.failed(1))
    client = TestClient(make_dashboard(app), base_url="https://jobs.example", follow_redirects=False)
    headers, path = bearer(AccessStore(app.database), Role.OPERATOR, ACME), f"/jobs/{job.key.job_id}"

    answers = [
        client.post(f"{path}/retry", headers=headers),
        client.post(f"/api/v1{path}/retry", headers=headers),
        client.post(f"{path}/edit", data={"data": '{"args": [[2]]}'}, headers=headers),
        client.post(
            "/jobs/bulk",
            data={"action": "retry", "confirmed": "yes", "keys": f"{job.key.job_id} acme"},
            headers=headers,
        ),
    ]
    app.close()

    assert [answer.status_code for answer in answers] == [503, 503, 422, 200]
    assert answers[0].headers["retry-after"] == "5"
    for answer in answers:
        assert "The broker cannot be reached" in answer.text
        assert "Errno" not in answer.text


# -- secrets in texts


def test_secrets_in_messages_errors_and_tracebacks_are_masked(
    app: Celery, client: TestClient, access: AccessStore
) -> None:
    job, recorder = made(app, metadata={"headers": {"X-API-Key": PASSWORD}}), JobRecorder(app.database)
    address = f"postgres://u:{PASSWORD}@host/db"
    recorder.record(job.started())
    recorder.record(job.progressed(message=f"reading {address}"))
    paths = [
        f"/jobs/{job.key.job_id}",
        f"/api/v1/jobs/{job.key.job_id}",
        "/api/v1/jobs",
        "/",
        "/jobs",
        "/jobs.csv",
        "/jobs.json",
    ]
    shown = [client.get(path, headers=bearer(access) | BROWSER).text for path in paths]
    assert "reading postgres://u:" in shown[0]
    error = f"ValueError: {{'password': '{PASSWORD}'}}"
    recorder.record(job.failed(1, error=error, traceback=f"connect(password='{PASSWORD}')\n{error}"))
    shown += [client.get(path, headers=bearer(access) | BROWSER).text for path in paths]

    assert "ValueError" in shown[len(paths)]
    assert [path for path, text in zip(paths * 2, shown, strict=True) if PASSWORD in text] == []


def test_secrets_in_what_people_write_are_masked(
    app: Celery, client: TestClient, access: AccessStore
) -> None:
    note = f"after passwd: {PASSWORD}"
    job = made(app)
    assert app.cancel_job(job.key.job_id, reason=note)
    handle = app.schedules.create("parity.total", "0 2 * * *", [1], name="noted", tenant=ACME)
    app.schedules.pause("noted", ACME, note=note)
    QueuePauses(app.database).pause("noted-queue", note=note)
    app.tenants.suspend(TenantId("noted-tenant"), reason=note)
    paths = [
        f"/jobs/{job.key.job_id}",
        f"/api/v1/jobs/{job.key.job_id}",
        f"/schedules/{handle.schedule_id}",
        "/schedules",
        "/api/v1/schedules",
        "/workers",
        "/tenants",
        "/audit",
        "/health",
    ]

    shown = [client.get(path, headers=bearer(access, Role.ADMIN) | BROWSER) for path in paths]

    assert [answer.status_code for answer in shown] == [200] * len(paths)
    assert "after passwd: ••••••" in shown[0].text
    assert [path for path, answer in zip(paths, shown, strict=True) if PASSWORD in answer.text] == []


# -- where a tenant's operator may send, and as whom


@pytest.mark.parametrize(
    "queue",
    [
        "celery@worker-1.celery.pidbox",
        "celery.pidbox",
        "0b6e8b4c-6a5f-3e8b-9f6e-1c1f3f0f6d0b.reply.celery.pidbox",
        "celeryev",
        "celeryev.0b6e8b4c-6a5f-3e8b-9f6e-1c1f3f0f6d0b",
    ],
)
@pytest.mark.parametrize("role", [Role.OPERATOR, Role.ADMIN])
def test_nobody_sends_a_job_into_remote_control(
    app: Celery, client: TestClient, access: AccessStore, queue: str, role: Role
) -> None:
    body = {"task": "parity.total", "args": [[1]], "queue": queue}
    headers = bearer(access, role, ACME if role is Role.OPERATOR else None)
    before = app.jobs.count_by_status()

    answer = client.post("/api/v1/jobs", json=body, headers=headers)

    assert (answer.status_code, "remote control" in answer.text) == (422, True)
    assert app.jobs.count_by_status() == before
    for options in ({"queue": queue}, {"queue": queue, "track": False}):
        with pytest.raises(UnsupportedOption, match="remote control"):
            app.tasks["parity.total"].apply_async([[1]], **options)
    with pytest.raises(UnsupportedOption, match="remote control"):
        app.schedules.create("parity.total", "0 2 * * *", [[1]], name="into-control", queue=queue)


@pytest.mark.parametrize("name", ["acme\u200b", "acme ", "acme\u00a0", "\u202eemca", "\uff41cme"])
def test_nobody_is_called_so_that_he_looks_like_another_tenant(
    app: Celery, client: TestClient, access: AccessStore, name: str
) -> None:
    headers = bearer(access, Role.ADMIN)
    tenants = {tenant.tenant for tenant in app.tenants.all()}

    sent = client.post(
        "/api/v1/jobs", json={"task": "parity.total", "args": [[1]], "tenant": name}, headers=headers
    )

    assert (sent.status_code, "cannot be a tenant" in sent.text) == (422, True)
    total = app.tasks["parity.total"]
    for send in (
        lambda: total.apply_async([[1]], tenant=name),
        lambda: app.schedules.create("parity.total", "0 2 * * *", [[1]], name="looks", tenant=name),
    ):
        with pytest.raises(UnsupportedOption, match="cannot be a tenant"):
            send()
    with pytest.raises(UnsupportedOption, match="cannot be a tenant"), tenant_context(name):
        total.delay([1])
    assert {tenant.tenant for tenant in app.tenants.all()} == tenants


# -- forms, redirects, files


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "https://jobs.example.evil"])
def test_nobody_is_signed_in_by_another_site(client: TestClient, access: AccessStore, origin: str) -> None:
    token, _ = access.create(str(uuid4()), Role.VIEWER)

    forged = client.post("/sign-in", data={"token": token}, headers={"origin": origin})
    honest = client.post("/sign-in", data={"token": token}, headers={"origin": "https://jobs.example"})

    assert (forged.status_code, "set-cookie" in forged.headers) == (403, False)
    assert honest.status_code == 303


def test_a_form_holds_nothing_that_cannot_be_stored(
    app: Celery, client: TestClient, access: AccessStore
) -> None:
    app.schedules.create("parity.total", "0 2 * * *", [1], name="nightly", tenant=ACME)
    path = f"/schedules/{schedule_id_for(ACME, 'nightly')}"

    answer = client.post(f"{path}/pause", data={"note": "a\0b"}, headers=bearer(access, Role.OPERATOR))

    assert answer.status_code == 303
    assert "a\ufffdb" in client.get(path, headers=bearer(access) | BROWSER).text


def test_a_download_is_never_a_page(app: Celery, client: TestClient, access: AccessStore) -> None:
    answer = client.get(f"/jobs/{made(app).key.job_id}/artifacts/a", headers=bearer(access))

    assert answer.headers["content-security-policy"] == "default-src 'none'; sandbox"
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"].startswith("attachment")


def test_pages_are_not_kept_by_caches_whatever_they_are_mounted_under(
    app: Celery, access: AccessStore
) -> None:
    outer = Starlette(routes=[Mount("/static/jobs", app=make_dashboard(app))])
    client = TestClient(outer, base_url="https://jobs.example")

    for path in ("jobs", "api/v1/jobs", "jobs.csv", "jobs.json"):
        answer = client.get(f"/static/jobs/{path}", headers=bearer(access))
        assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    style = client.get("/static/jobs/static/css/base.css")
    assert style.headers["cache-control"].startswith("public")


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-1", "@x", "\t=1", "\r=1", "\n=1", "  =1", "\uff1d1"])
def test_no_cell_of_a_file_is_a_formula(
    app: Celery, client: TestClient, access: AccessStore, cell: str
) -> None:
    tenant = TenantId(str(uuid4()))
    made(app, tenant, type=cell)

    file = client.get("/jobs.csv", headers=bearer(access, tenant=tenant)).text

    assert f"'{cell}" in file


@pytest.mark.parametrize(
    "host",
    ["evil.example", "localhost.evil", "a!b.evil.example", "evil.example:", "evil@localhost", "x y", "é", ""],
)
def test_without_tokens_a_name_that_cannot_be_read_is_not_this_machines(
    app: Celery, access: AccessStore, host: str
) -> None:
    local = make_dashboard(app, authenticator=LocalAuthenticator(access))
    client = TestClient(local, base_url="http://127.0.0.1:8484", client=("127.0.0.1", 5000))

    assert client.get("/api/v1/jobs", headers={"host": host.encode("latin-1")}).status_code == 403  # type: ignore[dict-item]
    for own in ("127.0.0.1:8484", "localhost", "LOCALHOST:80", "[::1]:8484"):
        assert client.get("/api/v1/jobs", headers={"host": own}).status_code == 200


@pytest.mark.parametrize(
    "accept", ["application/openmetrics-text; version=x", "text/plain; version=", "\xff"]
)
def test_metrics_are_given_whatever_is_accepted(client: TestClient, access: AccessStore, accept: str) -> None:
    headers = bearer(access) | {"accept": accept.encode("latin-1")}  # type: ignore[dict-item]

    assert client.get("/metrics", headers=headers).status_code == 200  # type: ignore[arg-type]
