"""Who gets in and how: sessions, proxies, whose application it is mounted in; and what strangers try."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send

from jobbridge import Celery
from jobbridge.cli.root import run
from jobbridge.core.access import Principal, Role
from jobbridge.core.keys import JobKey, TenantId
from jobbridge.dashboard.access import identity
from jobbridge.dashboard.access.identity import LocalAuthenticator
from jobbridge.dashboard.access.proxies import BehindProxies, ProxyAuthenticator, ProxyHeaders
from jobbridge.dashboard.access.rate_limits import address_of
from jobbridge.dashboard.application import make_dashboard
from jobbridge.dev.postgres import PostgresServer
from jobbridge.errors import ConfigurationError
from jobbridge.recording import JobRecorder
from jobbridge.settings import load_settings
from jobbridge.store.access.tokens import AccessStore
from tests.job_events import EventsOf
from tests.parity.tasks import make_app
from tests.streams import streaming

ACME, OTHER = TenantId("acme"), TenantId("tenant-b")
BROWSER = {"accept": "text/html"}
PROXY = "10.0.0.7"
HEADERS = ProxyHeaders(user="X-Remote-User", role="X-Remote-Role", tenant="X-Remote-Tenant")
ADA = {"x-remote-user": "ada", "x-remote-role": "operator", "x-remote-tenant": "*"}


@pytest.fixture(scope="module")
def app(postgres: PostgresServer, migrated_template: str) -> Iterator[Celery]:
    url = postgres.create_database(f"test_access_{uuid4().hex}", template=migrated_template)
    app = make_app(settings=load_settings({"DATABASE_URL": url, "TEMPORAL_ADDRESS": "127.0.0.1:1"}))
    app.finalize()
    yield app
    app.close()


@pytest.fixture(scope="module")
def access(app: Celery) -> AccessStore:
    return AccessStore(app.database)


@pytest.fixture
def job(app: Celery) -> EventsOf:
    job = EventsOf(JobKey(tenant=ACME, job_id=uuid4()))
    JobRecorder(app.database).record(job.submitted())
    return job


def behind_proxy(
    app: Celery, access: AccessStore, *, peer: str = PROXY, headers: ProxyHeaders = HEADERS
) -> TestClient:
    authenticator = ProxyAuthenticator(access, proxies=[PROXY], headers=headers)
    served = make_dashboard(app, authenticator=authenticator, proxies=[PROXY])
    return TestClient(served, base_url="https://jobs.example", client=(peer, 5000), follow_redirects=False)


def token_of(page: str) -> str:
    found = re.search(r'name="form_token" value="([0-9a-f]+)"', page)
    assert found is not None
    return found[1]


def sign_in(client: TestClient, access: AccessStore, role: Role = Role.OPERATOR) -> str:
    token, _ = access.create(str(uuid4()), role)
    done = client.post("/sign-in", data={"token": token})
    assert done.status_code == 303
    return str(client.cookies[identity.COOKIE])


@pytest.fixture
def client(app: Celery) -> TestClient:
    return TestClient(make_dashboard(app), base_url="https://jobs.example", follow_redirects=False)


# -- a proxy that signs people in


def test_a_proxy_says_who_it_is(app: Celery, access: AccessStore, job: EventsOf) -> None:
    client = behind_proxy(app, access)
    path = f"/jobs/{job.key.job_id}"

    page = client.get(path, headers=ADA | BROWSER)
    refused = client.post(f"{path}/cancel", headers=ADA)
    done = client.post(f"{path}/cancel", data={"form_token": token_of(page.text)}, headers=ADA)

    assert "ada · operator" in page.text
    assert (refused.status_code, done.status_code) == (403, 303)
    assert access.actions(ACME)[0].actor == "ada"
    assert client.get("/", headers=BROWSER).headers["location"].startswith("/sign-in")


def test_the_form_of_one_person_is_of_no_use_to_another(
    app: Celery, access: AccessStore, job: EventsOf
) -> None:
    client = behind_proxy(app, access)
    path = f"/jobs/{job.key.job_id}"
    token = token_of(client.get(path, headers=ADA | BROWSER).text)

    for other in (ADA | {"x-remote-user": "eve"}, ADA | {"x-remote-role": "admin"}):
        assert client.post(f"{path}/cancel", data={"form_token": token}, headers=other).status_code == 403


@pytest.mark.parametrize("peer", ["10.0.0.8", "127.0.0.1", "::1", "testclient"])
def test_nobody_else_says_who_it_is(app: Celery, access: AccessStore, peer: str) -> None:
    client = behind_proxy(app, access, peer=peer)

    for headers in (ADA, ADA | {"x-forwarded-for": PROXY}, ADA | {"forwarded": f"for={PROXY}"}):
        assert client.get("/api/v1/jobs", headers=headers).status_code == 401


def test_a_client_of_the_proxy_cannot_become_the_proxy(app: Celery, access: AccessStore) -> None:
    client = behind_proxy(app, access)

    assert client.get("/api/v1/jobs", headers=ADA | {"x-forwarded-for": "6.6.6.6"}).status_code == 200
    twice = [*ADA.items(), ("x-remote-user", "root")]
    assert client.get("/api/v1/jobs", headers=twice).status_code == 401  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "headers",
    [
        {"x-remote-user": ""},
        {"x-remote-user": "x" * 300},
        {"x-remote-role": "root"},
        {"x-remote-role": ""},
        {"x-remote-tenant": ""},
    ],
)
def test_what_a_proxy_leaves_open_is_not_guessed(
    app: Celery, access: AccessStore, headers: dict[str, str]
) -> None:
    assert behind_proxy(app, access).get("/api/v1/jobs", headers=ADA | headers).status_code == 401


def test_a_proxy_binds_a_person_to_a_tenant(app: Celery, access: AccessStore, job: EventsOf) -> None:
    client = behind_proxy(app, access)

    def shown(tenant: str) -> int:
        headers = ADA | {"x-remote-tenant": tenant}
        return client.get(f"/api/v1/jobs/{job.key.job_id}", headers=headers).status_code

    assert (shown(ACME), shown(OTHER), shown("*")) == (200, 404, 200)
    assert client.get("/workers", headers=ADA | {"x-remote-tenant": ACME}).status_code == 404


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_a_proxy_may_name_people_and_tenants_by_any_letters(
    app: Celery, access: AccessStore, encoding: str
) -> None:
    job = EventsOf(JobKey(tenant=TenantId("Café Élan"), job_id=uuid4()))
    JobRecorder(app.database).record(job.submitted())
    headers = {name: value.encode() for name, value in ADA.items()} | {
        "x-remote-user": "Zoë É".encode(encoding),
        "x-remote-tenant": "Café Élan".encode(encoding),
    }

    page = behind_proxy(app, access).get(
        f"/jobs/{job.key.job_id}", headers=headers | {"accept": b"text/html"}
    )  # type: ignore[arg-type,operator]  # bytes, too

    assert "Zoë É · operator of Café Élan" in page.text


def test_a_role_for_all_is_enough(app: Celery, access: AccessStore) -> None:
    client = behind_proxy(app, access, headers=ProxyHeaders(user="X-Remote-User"))

    assert client.get("/api/v1/jobs", headers={"x-remote-user": "ada"}).status_code == 200
    assert client.get("/api/v1/tasks", headers={"x-remote-user": "ada"}).status_code == 403


def test_attempts_are_counted_by_whom_the_proxy_forwards_for(app: Celery, access: AccessStore) -> None:
    client = behind_proxy(app, access)

    def attempt(address: str) -> int:
        return client.post("/sign-in", data={"token": "x"}, headers={"x-forwarded-for": address}).status_code

    assert [attempt("6.6.6.6") for _ in range(11)] == [401] * 10 + [429]
    assert attempt("6.6.6.7") == 401


def test_who_forges_its_address_is_counted_all_the_same(app: Celery) -> None:
    client = TestClient(make_dashboard(app), base_url="https://jobs.example")

    answers = [
        client.post(
            "/sign-in", data={"token": "x"}, headers={"x-forwarded-for": f"6.6.6.{number}"}
        ).status_code
        for number in range(11)
    ]

    assert answers == [401] * 10 + [429]


def test_an_ipv6_network_is_one_address() -> None:
    assert address_of("2001:db8::1") == address_of("2001:db8::ffff") != address_of("2001:db8:1::1")
    assert address_of("::ffff:10.0.0.1") == "10.0.0.1"
    assert address_of("unix") == "unix"


def test_a_proxy_is_named_by_its_address(
    app: Celery, access: AccessStore, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigurationError, match=r"proxy\.example"):
        BehindProxies(Starlette(), ["proxy.example"])
    with pytest.raises(ConfigurationError, match="whoever sends it"):
        ProxyAuthenticator(access, proxies=[], headers=HEADERS)
    assert run(["dashboard", "--proxy-role-header", "X-Role"]) == 3
    assert "--proxy-user-header" in capsys.readouterr().err


# -- sessions


def test_a_session_that_was_ended_is_dead_wherever_its_cookie_is(
    client: TestClient, access: AccessStore
) -> None:
    stolen = sign_in(client, access)
    page = client.get("/", headers=BROWSER).text

    client.post("/sign-out", data={"form_token": token_of(page)})

    answer = client.get("/api/v1/jobs", headers={"cookie": f"{identity.COOKIE}={stolen}"})
    assert answer.status_code == 401


def test_each_sign_in_is_a_session_of_its_own(client: TestClient, access: AccessStore) -> None:
    token, _ = access.create(str(uuid4()), Role.VIEWER)
    planted = {"cookie": f"{identity.COOKIE}=planted"}

    cookies = {
        client.post("/sign-in", data={"token": token}, headers=planted).cookies[identity.COOKIE]
        for _ in range(2)
    }

    assert len(cookies) == 2
    assert "planted" not in cookies


@pytest.mark.parametrize(
    "data",
    [
        '{"tenantId": "other"}',
        '{"data": ' + "[" * 900 + "]" * 900 + "}",
        '{"x": "\\u0000"}',
        '{"x": "\\ud800"}',
        '{"x": 1e999}',
    ],
    ids=range(5),
)
def test_edited_data_is_of_the_tenant_and_can_be_stored(
    app: Celery, client: TestClient, access: AccessStore, data: str
) -> None:
    job = app.enqueue("parity.total", {"args": [[1]]}, tenant=ACME)
    app.cancel_job(job.job_id)
    token, _ = access.create(str(uuid4()), Role.OPERATOR, tenant=ACME)

    answer = client.post(
        f"/jobs/{job.job_id}/edit", data={"data": data}, headers={"authorization": f"Bearer {token}"}
    )

    assert answer.status_code == 422


def test_without_tokens_a_command_on_this_machine_may_act_and_a_page_of_another_site_not(
    app: Celery, access: AccessStore
) -> None:
    local = make_dashboard(app, authenticator=LocalAuthenticator(access))
    client = TestClient(local, base_url="http://localhost:8484", client=("127.0.0.1", 5000))
    body = {"task": "parity.total", "args": [[1]]}

    assert client.post("/api/v1/jobs", json=body).status_code == 201
    for headers in (
        {"origin": "https://evil.example"},
        {"sec-fetch-site": "cross-site"},
        {"referer": "http://evil"},
    ):
        assert client.post("/api/v1/jobs", json=body, headers=headers).status_code == 403
    assert (
        client.post("/api/v1/jobs", content=b"{}", headers={"content-type": "text/plain"}).status_code == 415
    )


# -- tokens and the audit


def test_a_token_is_made_shown_once_and_revoked(client: TestClient, access: AccessStore) -> None:
    sign_in(client, access, Role.ADMIN)
    form = {"form_token": token_of(client.get("/access", headers=BROWSER).text)}

    made = client.post(
        "/access/create", data=form | {"name": "bob", "role": "viewer", "tenant": ACME, "days": "7"}
    )
    token = re.search(r"jbt_[\w-]+", made.text)
    assert token is not None
    headers = {"authorization": f"Bearer {token[0]}"}
    bob = access.find(token[0])
    assert bob is not None
    assert (bob.name, bob.role, bob.tenant, bob.expires_at is not None) == ("bob", Role.VIEWER, ACME, True)
    assert token[0] not in client.get("/access", headers=BROWSER).text
    again = client.post("/access/create", data=form | {"name": "bob", "role": "viewer"})
    assert (again.status_code, "jbt_" in again.text) == (409, False)
    client.post("/access/revoke", data=form | {"token_id": str(bob.token_id)})

    assert client.get("/api/v1/jobs", headers=headers).status_code == 401
    assert [(action.action, action.outcome) for action in access.actions()[:3]] == [
        ("revoke token", "done"),
        ("create token", "refused"),
        ("create token", "done"),
    ]
    assert token[0] not in str(access.actions())


@pytest.mark.parametrize(
    "form", [{"name": ""}, {"role": "root"}, {"days": "-1"}, {"days": "99999"}, {"name": "x" * 201}]
)
def test_a_token_that_cannot_be_is_not_made(
    client: TestClient, access: AccessStore, form: dict[str, str]
) -> None:
    sign_in(client, access, Role.ADMIN)
    known = {
        "form_token": token_of(client.get("/access", headers=BROWSER).text),
        "name": "eve",
        "role": "viewer",
    }

    answer = client.post("/access/create", data=known | form)

    assert answer.status_code == 409
    assert "eve" not in {row.name for row in access.all()}


def test_an_administrator_of_a_tenant_reads_of_that_tenant_alone(app: Celery, access: AccessStore) -> None:
    somebody = Principal(name="somebody", role=Role.OPERATOR)
    for number in range(60):
        access.note(somebody, f"act-{number}", tenant=ACME, subject="of-acme")
    access.note(somebody, "cancel", tenant=OTHER, subject="of-other")
    access.note(somebody, "suspend", subject="of-all")
    token, _ = access.create(str(uuid4()), Role.ADMIN, tenant=ACME)
    client = TestClient(make_dashboard(app), headers={"authorization": f"Bearer {token}"})

    first = client.get(f"/audit?tenant={OTHER}").text
    older = re.search(r'href="([^"]+)">Older', first)
    assert older is not None
    second = client.get(older[1]).text

    assert "act-59" in first
    assert "act-0<" in second
    for text in (OTHER, "of-other", "of-all"):
        assert text not in first + second
    assert client.get("/access").status_code == 404
    assert client.get("/audit?before=x").status_code == 400


# -- clearing history


def _made(app: Celery, tenant: TenantId, end: str | None, *, days: int) -> UUID:
    job = EventsOf(JobKey(tenant=tenant, job_id=uuid4()))
    recorder = JobRecorder(app.database)
    recorder.record(job.submitted())
    recorder.record(job.started())
    if end is not None:
        recorder.record(job.completed(1) if end == "completed" else job.failed(1))
    with app.database.connection() as connection:
        connection.execute(
            "UPDATE jobs SET created_at = created_at - %s * interval '1 day' WHERE job_id = %s",
            (days, job.key.job_id),
        )
    return job.key.job_id


def test_what_was_shown_goes_and_nothing_else(client: TestClient, app: Celery, access: AccessStore) -> None:
    tenant = TenantId(f"clear-{uuid4().hex[:6]}")
    old = _made(app, tenant, "completed", days=100)
    kept = {
        _made(app, tenant, None, days=100),
        _made(app, tenant, "failed", days=100),
        _made(app, tenant, "completed", days=10),
        _made(app, TenantId("clear-other"), "completed", days=100),
    }
    schedule = app.schedules.create("parity.total", "0 2 * * *", [[1]], name="kept", tenant=tenant)
    token, _ = access.create(str(uuid4()), Role.ADMIN, tenant=tenant)
    headers = {"authorization": f"Bearer {token}"}

    shown = client.get("/clearing?days=90&status=completed&tenant=clear-other", headers=headers).text
    assert "1 job would go" in shown
    form = dict(re.findall(r'<input type="hidden" name="(before|status)" value="([^"]*)"', shown))
    refused = client.post("/clearing/clear", data=form | {"word": "clea"}, headers=headers)
    assert refused.status_code == 400
    assert app.jobs.find(old) is not None
    done = client.post("/clearing/clear?tenant=clear-other", data=form | {"word": "Clear"}, headers=headers)

    assert "1 job was deleted" in done.text
    assert app.jobs.find(old) is None
    assert all(app.jobs.find(job_id) is not None for job_id in kept)
    assert app.schedules.find(schedule.schedule_id).name == "kept"
    assert [action.outcome for action in access.actions(tenant)] == ["done", "refused"]
    assert access.actions(tenant)[0].details["jobs"] == 1


@pytest.mark.parametrize(
    "form",
    [
        {"status": "queued"},
        {"status": ""},
        {"before": "2999-01-01T00:00:00+00:00"},
        {"before": "2020-01-01T00:30:00+00:00"},
        {"before": "x"},
        {"after": "x"},
    ],
)
def test_what_has_not_ended_cannot_be_cleared(
    client: TestClient, access: AccessStore, form: dict[str, str]
) -> None:
    token, _ = access.create(str(uuid4()), Role.ADMIN)
    known = {"status": "completed", "before": "2020-01-01T00:00:00+00:00", "word": "clear"}

    answer = client.post("/clearing/clear", data=known | form, headers={"authorization": f"Bearer {token}"})

    assert answer.status_code == 400


# -- what strangers try


def test_a_method_is_what_it_says(client: TestClient, access: AccessStore, job: EventsOf) -> None:
    sign_in(client, access)
    path = f"/jobs/{job.key.job_id}/cancel"

    for headers in ({}, {"x-http-method-override": "POST"}, {"x-method-override": "POST"}):
        assert client.get(path, headers=headers).status_code == 405
        assert client.get(f"{path}?_method=POST", headers=headers).status_code == 405
    for method in ("PUT", "DELETE", "PATCH", "TRACE", "OPTIONS"):
        assert client.request(method, path).status_code == 405


def test_the_name_of_the_host_leads_nowhere(client: TestClient, access: AccessStore) -> None:
    evil = {"host": "evil.example", "x-forwarded-host": "evil.example", "x-original-url": "/healthz"}

    asked = client.get("/jobs", headers=evil | BROWSER)
    assert asked.headers["location"].startswith("/sign-in")
    token, _ = access.create(str(uuid4()), Role.VIEWER)
    done = client.post("/sign-in", data={"token": token}, headers=evil)
    assert done.headers["location"] == "/"
    page = client.get("/", headers=evil | BROWSER)
    assert page.status_code == 200
    assert "evil.example" not in page.text
    slash = client.get("/jobs/", headers=evil | {"authorization": f"Bearer {token}"})
    assert "evil.example" not in slash.headers.get("location", "")


@pytest.mark.parametrize(
    "path", ["//evil.example/jobs", "/%2f%2fevil.example", "/jobs//", "/%0d%0aSet-Cookie:x=1"]
)
def test_an_odd_path_leads_nowhere(client: TestClient, path: str) -> None:
    answer = client.get(path, headers=BROWSER)

    assert answer.status_code in {303, 404}
    assert answer.headers.get("location", "/sign-in").startswith("/sign-in")
    assert "set-cookie" not in answer.headers


def test_nothing_is_kept_by_a_cache(client: TestClient, access: AccessStore) -> None:
    sign_in(client, access, Role.ADMIN)

    for path in ("/", "/jobs", "/api/v1/jobs", "/sign-in", "/nowhere", "/healthz"):
        assert client.get(path).headers["cache-control"] == "no-store", path


def test_no_site_may_read_or_frame_it(client: TestClient, access: AccessStore) -> None:
    sign_in(client, access)

    answer = client.get("/api/v1/jobs", headers={"origin": "https://evil.example"})

    assert not [name for name in answer.headers if name.startswith("access-control-")]
    assert answer.headers["x-frame-options"] == "DENY"
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]


def test_what_fails_tells_a_stranger_nothing(
    app: Celery, access: AccessStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = make_dashboard(app)
    monkeypatch.setattr(served.state.dashboard, "counts", None)  # a fault of ours
    client = TestClient(served, raise_server_exceptions=False)
    token, _ = access.create(str(uuid4()), Role.VIEWER)

    answer = client.get("/api/v1/counts", headers={"authorization": f"Bearer {token}"})

    assert (answer.status_code, answer.json()["error"]) == (500, "That could not be done.")
    assert "NoneType" not in answer.text
    assert answer.headers["x-content-type-options"] == "nosniff"


# -- whose application it is mounted in


def _in_starlette(dashboard: ASGIApp) -> ASGIApp:
    return Starlette(routes=[Mount("/ops/jobs", app=dashboard)])


def _in_fastapi(dashboard: ASGIApp) -> ASGIApp:
    outer = FastAPI()
    outer.mount("/ops/jobs", dashboard)
    return outer


def _in_django(dashboard: ASGIApp) -> ASGIApp:
    django = _django()

    async def outer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("path", "").startswith("/ops/jobs/"):
            scope = {**scope, "root_path": scope.get("root_path", "") + "/ops/jobs"}
            await dashboard(scope, receive, send)
        else:
            await django(scope, receive, send)

    return outer


def _django() -> ASGIApp:
    import django
    from django.conf import settings
    from django.core.asgi import get_asgi_application

    if not settings.configured:
        settings.configure(ROOT_URLCONF=(), ALLOWED_HOSTS=["*"], SECRET_KEY="x")
        django.setup()
    return get_asgi_application()  # type: ignore[return-value]


@pytest.mark.parametrize("mount", [_in_starlette, _in_fastapi, _in_django])
def test_it_works_within_another_application(
    app: Celery, access: AccessStore, mount: Callable[[Any], Any], job: EventsOf
) -> None:
    client = TestClient(mount(make_dashboard(app)), base_url="https://jobs.example", follow_redirects=False)
    token, _ = access.create(str(uuid4()), Role.OPERATOR)

    asked = client.get("/ops/jobs/jobs", headers=BROWSER)
    assert asked.headers["location"] == "/ops/jobs/sign-in?next=%2Fops%2Fjobs%2Fjobs"
    done = client.post("/ops/jobs/sign-in", data={"token": token, "next": "/ops/jobs/jobs"})
    assert done.headers["location"] == "/ops/jobs/jobs"
    assert "Path=/ops/jobs/" in done.headers["set-cookie"]
    page = client.get("/ops/jobs/jobs", headers=BROWSER).text
    for link in re.findall(r'(?:href|src|action)="(/[^"]*)"', page):
        assert link.startswith("/ops/jobs/"), link
    style = re.search(r'href="([^"]+base\.css)"', page)
    assert style is not None
    assert client.get(style[1]).headers["content-type"].startswith("text/css")
    told = client.get("/ops/jobs/api/v1/openapi.json").json()
    assert told["servers"] == [{"url": "/ops/jobs"}]
    sent = client.post(
        "/ops/jobs/api/v1/jobs",
        json={"task": "parity.total", "args": [[1]]},
        headers={"authorization": f"Bearer {token}"},
    )
    assert client.get(sent.headers["location"]).status_code == 200
    path = f"/ops/jobs/jobs/{job.key.job_id}"
    form = {"form_token": token_of(client.get(path, headers=BROWSER).text)}
    assert client.post(f"{path}/cancel", data=form).headers["location"].startswith(path)
    assert client.get("/elsewhere").status_code == 404


@pytest.mark.parametrize("passed_on", ["", "/ops/jobs"])
def test_it_works_under_a_path_of_the_proxys(
    app: Celery, access: AccessStore, passed_on: str, job: EventsOf
) -> None:
    served = make_dashboard(app, root_path="/ops/jobs/")
    client = TestClient(served, base_url="https://jobs.example", follow_redirects=False)
    token, _ = access.create(str(uuid4()), Role.OPERATOR)

    asked = client.get(f"{passed_on}/jobs", headers=BROWSER)
    assert asked.headers["location"] == "/ops/jobs/sign-in?next=%2Fops%2Fjobs%2Fjobs"
    done = client.post(f"{passed_on}/sign-in", data={"token": token, "next": "/ops/jobs/jobs"})
    assert done.headers["location"] == "/ops/jobs/jobs"
    assert "Path=/ops/jobs/" in done.headers["set-cookie"]
    cookie = {"cookie": done.headers["set-cookie"].partition(";")[0]}
    page = client.get(f"{passed_on}/jobs", headers=BROWSER | cookie).text
    links = re.findall(r'(?:href|src|action)="(/[^"]*)"', page)
    assert [link for link in links if not link.startswith("/ops/jobs/")] == []
    style = next(link for link in links if link.endswith(".css"))
    assert client.get(style.removeprefix("/ops/jobs" if not passed_on else "")).status_code == 200
    assert client.get(f"{passed_on}/jobs/{job.key.job_id}", headers=cookie).status_code == 200


@pytest.mark.parametrize("path", ["ops", "//ops", "/ops jobs", "/ops?x"])
def test_what_is_no_path_is_refused(app: Celery, path: str) -> None:
    with pytest.raises(ConfigurationError, match="is no path"):
        TestClient(make_dashboard(app, root_path=path)).get("/")


@pytest.mark.parametrize("mount", [_in_starlette, _in_django])
@pytest.mark.parametrize("path", ["/ops/jobs/events", "/ops/jobs/api/v1/events"])
def test_streams_begin_within_another_application(
    app: Celery, access: AccessStore, mount: Callable[[Any], Any], path: str
) -> None:
    token, _ = access.create(str(uuid4()), Role.VIEWER)
    dashboard = make_dashboard(app)

    async def watch() -> None:
        headers = {"authorization": f"Bearer {token}"}
        async with streaming(mount(dashboard), path, headers=headers) as stream:
            await stream.until_event("open")
            assert stream.headers["content-type"].startswith("text/event-stream")
            assert stream.headers["cache-control"] == "no-store"
        dashboard.state.dashboard.live.here().stop()

    asyncio.run(watch())
