"""The dashboard: what its pages show, who may see and do what, and what a stranger's request comes to.

The tests of permissions are made from the route table: a route without a rule cannot be added, and one that shows
another tenant's jobs fails here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

from jobbridge import Celery
from jobbridge.app.results.artifacts import Artifact
from jobbridge.core.access import Role
from jobbridge.core.keys import JobKey, TenantId
from jobbridge.core.schedules.policies import schedule_id_for
from jobbridge.core.status import JobStatus
from jobbridge.dashboard.access import identity
from jobbridge.dashboard.access.identity import LocalAuthenticator
from jobbridge.dashboard.access.request_context import Rule
from jobbridge.dashboard.application import RULES, make_dashboard
from jobbridge.recording import JobRecorder
from jobbridge.settings import load_settings
from jobbridge.store.access.tokens import AccessStore
from jobbridge.store.batches import rows as batches
from jobbridge.store.jobs.rows import JobRow
from tests.job_events import EventsOf
from tests.parity.tasks import make_app

ACME, OTHER = TenantId("acme"), TenantId("other-tenant-xyz")
MINE = JobKey(tenant=ACME, job_id=uuid4())
THEIRS = JobKey(tenant=OTHER, job_id=uuid4())
EVIL = "<script>alert(1)</script>"
BROWSER = {"accept": "text/html"}
#: What must never reach somebody of another tenant: ids, names, errors and data of the job THEIRS.
OF_OTHERS = (
    str(OTHER), str(THEIRS.job_id), "secret-of-others", "type-of-others", "error-of-others", "schedule-of-others",
    "queue-of-others",
)  # fmt: skip


@pytest.fixture
def app(database_url: str) -> Iterator[Celery]:
    app = make_app(settings=load_settings({"DATABASE_URL": database_url, "TEMPORAL_ADDRESS": "127.0.0.1:1"}))
    app.conf.job_artifacts = [_artifacts_of]
    app.finalize()
    _fill(app)
    yield app
    app.close()


def _artifacts_of(app: Celery, job: JobRow) -> list[Artifact]:
    """Every job made something, with a name that is none of ours."""
    what = "secret-of-others" if job.tenant == OTHER else "made by mine"
    return [
        Artifact(
            artifact_id="made",
            name=f'{EVIL}"\r\n../é.html',
            media_type="text/html",
            size=None,
            read=what.encode,
        )
    ]


def _fill(app: Celery) -> None:
    recorder = JobRecorder(app.database)
    for key, type_, metadata, error in (
        (MINE, EVIL, {"data": {"password": "hunter2", "invoice": EVIL}}, f"ConnectionError: {EVIL}"),
        (THEIRS, "type-of-others", {"data": {"note": "secret-of-others"}}, "error-of-others"),
    ):
        job = EventsOf(key)
        recorder.record(job.submitted(type=type_, metadata=metadata))
        recorder.record(job.started())
        recorder.record(job.failed(1, error=error))
    with app.database.transaction() as connection:
        for tenant, batch_id in BATCHES.items():
            name = "batch-of-others" if tenant == OTHER else EVIL
            batches.open_batch(connection, batch_id, tenant, name, callbacks=None, callbacks_type=None)
    app.schedules.create("parity.total", "0 2 * * *", [1], name="nightly", tenant=ACME)
    app.schedules.create(
        "parity.total", "0 2 * * *", [1], name="schedule-of-others", tenant=OTHER, queue="queue-of-others"
    )


@pytest.fixture
def access(app: Celery) -> AccessStore:
    return AccessStore(app.database)


@pytest.fixture
def client(app: Celery) -> TestClient:
    return TestClient(make_dashboard(app), base_url="https://jobs.example", follow_redirects=False)


def bearer(access: AccessStore, role: Role = Role.VIEWER, tenant: TenantId | None = None) -> dict[str, str]:
    token, _ = access.create(str(uuid4()), role, tenant=tenant)
    return {"authorization": f"Bearer {token}"}


def sign_in(client: TestClient, access: AccessStore, role: Role, tenant: TenantId | None = None) -> None:
    token, _ = access.create(str(uuid4()), role, tenant=tenant)
    assert client.post("/sign-in", data={"token": token}).status_code == 303


BATCHES = {ACME: uuid4(), OTHER: uuid4()}
#: What stands in an address: whose of the tenant ACME, whose of OTHER, whose of nobody. A route with a further name in
#: its address adds it here, and to `_fill` what it names.
IDS: dict[str, dict[str, str]] = {
    "mine": {
        "job_id": str(MINE.job_id),
        "schedule_id": str(schedule_id_for(ACME, "nightly")),
        "batch_id": str(BATCHES[ACME]),
        "queue": "celery",
        "link": "x" * 43,
        "event_link": "x" * 43,
        "artifact_id": "made",
    },
    "theirs": {
        "job_id": str(THEIRS.job_id),
        "schedule_id": str(schedule_id_for(OTHER, "schedule-of-others")),
        "batch_id": str(BATCHES[OTHER]),
        "queue": "queue-of-others",
        "link": "y" * 43,
        "event_link": "y" * 43,
        "artifact_id": "made",
    },
    "nobodys": {
        "job_id": str(uuid4()),
        "schedule_id": str(uuid4()),
        "batch_id": str(uuid4()),
        "queue": "nowhere",
        "link": "z" * 43,
        "event_link": "z" * 43,
        "artifact_id": "made",
    },
}
#: What routes of the API must be sent.
BODIES: dict[str, object] = {
    "api_send": {"task": "parity.total", "args": [[1, 2]]},
    "api_send_event": {"name": "approval", "key": "order-7"},
    "api_send_job_event": {"name": "approval"},
    "api_make_event_link": {"name": "approval"},
    "api_set_rule": {"kind": "concurrency", "target": "parity.total", "limit": 3},
    "api_remove_rule": {"kind": "concurrency", "target": "parity.total"},
    "api_schedule_backfill": {"start": "2026-01-01T00:00:00Z", "end": "2026-01-02T00:00:00Z"},
}


def address(rule: Rule, whose: str = "mine") -> str:
    return rule.path.format(**IDS[whose])


def is_of_somebody(rule: Rule) -> bool:
    """Whether its address names something that belongs to a tenant."""
    return bool({"job_id", "schedule_id", "batch_id"} & set(re.findall(r"{(\w+)}", rule.path)))


def status_of(app: Celery, key: JobKey) -> JobStatus:
    row = app.jobs.get(key)
    assert row is not None
    return row.status


def form_token(page: str) -> str:
    found = re.search(r'name="form_token" value="([0-9a-f]+)"', page)
    assert found is not None
    return found[1]


# -- made from the route table

CLOSED = [rule for rule in RULES if rule.needs is not None]
#: Paths whose GET is a stream, whatever else they take.
STREAMS = {rule.path for rule in RULES if rule.is_stream}
#: Those whose answer ends; what streams send is looked at in test_live_streams.py.
ASKED = [rule for rule in CLOSED if not rule.is_stream]
#: What everybody may ask for. Whoever adds a route here has thought about it.
OPEN = {
    "sign_in", "do_sign_in", "healthz", "readyz", "from_the_original", "public_job", "api_description", "event_link",
    "answer_event_link",
}  # fmt: skip


def test_only_these_routes_are_open_to_everybody() -> None:
    assert {rule.name for rule in RULES if rule.needs is None} == OPEN


def test_a_stranger_is_told_nothing(client: TestClient) -> None:
    for rule in CLOSED:
        for method in rule.methods:
            response = client.request(method, address(rule))
            assert response.status_code == 401, rule.name
            assert "ConnectionError" not in response.text
            page = client.request(method, address(rule), headers=BROWSER)
            is_page = method == "GET" and not rule.is_api
            assert page.status_code == (303 if is_page else 401), rule.name


def test_a_lesser_role_is_refused(client: TestClient, access: AccessStore, app: Celery) -> None:
    for rule in CLOSED:
        assert rule.needs is not None
        for role in (role for role in Role if not role.includes(rule.needs)):
            for method in rule.methods:
                response = client.request(method, address(rule), headers=bearer(access, role))
                assert response.status_code == 403, (rule.name, role)


def test_whoever_changes_something_is_at_least_an_operator() -> None:
    changing = {rule.name for rule in RULES if rule.changes and rule.needs in (None, Role.VIEWER)}

    assert changing == {"do_sign_in", "sign_out", "answer_event_link"}


def test_nothing_of_another_tenant_is_on_any_route(
    client: TestClient, access: AccessStore, app: Celery
) -> None:
    for role in Role:
        headers = bearer(access, role, ACME) | BROWSER
        # The audit has what they typed themselves, also the names of others: see test_dashboard_access.py.
        for rule in (rule for rule in ASKED if rule.name != "audit"):
            for method in rule.methods:
                for query in ("", f"?tenant={OTHER}", f"?text={THEIRS.job_id}", "?text=error-of"):
                    path = address(rule, "theirs") + query
                    response = client.request(method, path, headers=headers, json=BODIES.get(rule.name))
                    shown = without_ids(response.text.replace(path, ""))
                    assert [text for text in OF_OTHERS if text in shown and text not in query] == [], path
                    if is_of_somebody(rule) or rule.is_global:
                        path = address(rule, "nobodys") + query
                        other = client.request(method, path, headers=headers, json=BODIES.get(rule.name))
                        assert response.status_code == other.status_code, path
                        refused = {403, 404, 422} if rule.is_api and "text" in query else {403, 404}
                        assert response.status_code in refused, path  # 422: that route has no such filter
                        assert without_ids(response.text) == without_ids(other.text)
                        assert sorted(response.headers) == sorted(other.headers)
    assert status_of(app, THEIRS) is JobStatus.FAILED
    assert access.actions(OTHER) == []


def without_ids(text: str) -> str:
    """Leave out what the request itself said."""
    for whose in ("theirs", "nobodys"):
        for id_ in IDS[whose].values():
            text = text.replace(id_, "…", 1)
    return text


def test_each_page_answers_somebody_who_may_see_it(client: TestClient, access: AccessStore) -> None:
    for tenant in (None, ACME):
        headers = bearer(access, Role.ADMIN, tenant)
        for rule in (rule for rule in ASKED if not rule.changes and not (tenant and rule.is_global)):
            response = client.get(address(rule), headers=headers | BROWSER)
            assert response.status_code == 200, (rule.name, response.text)


def test_what_people_wrote_is_text_on_every_page(client: TestClient, access: AccessStore) -> None:
    headers = bearer(access, Role.ADMIN)
    for rule in (rule for rule in ASKED if not rule.changes):
        response = client.get(f"{address(rule)}?text={EVIL}&type={EVIL}", headers=headers | BROWSER)
        if "html" in response.headers["content-type"]:
            assert EVIL not in response.text, rule.name
            assert EVIL in unescape(response.text) or "{job_id}" not in rule.path
        assert "hunter2" not in response.text, rule.name


def test_every_answer_says_what_a_browser_may_do_with_it(client: TestClient, access: AccessStore) -> None:
    headers = bearer(access, Role.ADMIN)
    for path in [
        *(address(rule) for rule in RULES if rule.path not in STREAMS),
        "/static/css/base.css",
        "/nowhere",
    ]:
        response = client.get(path, headers=headers | BROWSER)
        policy = response.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert response.headers["x-content-type-options"] == "nosniff"


def test_no_page_has_anything_inline(client: TestClient, access: AccessStore) -> None:
    headers = bearer(access, Role.ADMIN)
    for rule in (rule for rule in RULES if not rule.changes and not rule.is_stream):
        page = client.get(address(rule), headers=headers | BROWSER)
        if "html" in page.headers.get("content-type", ""):
            assert re.search(r"<style|<script(?![^>]*\ssrc=)|\sstyle=|\son\w+=", page.text) is None, rule.name


# -- signing in


def test_a_session_begins_with_a_token_and_ends_with_it(client: TestClient, access: AccessStore) -> None:
    token, _ = access.create("ada", Role.VIEWER)
    asked = client.get("/jobs?status=failed", headers=BROWSER)
    assert asked.headers["location"] == "/sign-in?next=%2Fjobs%3Fstatus%3Dfailed"

    done = client.post("/sign-in", data={"token": token, "next": "/jobs?status=failed"})

    assert (done.status_code, done.headers["location"]) == (303, "/jobs?status=failed")
    cookie = done.headers["set-cookie"]
    assert all(part in cookie for part in ("HttpOnly", "Secure", "SameSite=lax"))
    assert token not in cookie
    assert client.get("/jobs").status_code == 200
    access.revoke("ada")
    assert client.get("/jobs").status_code == 401


def test_signing_out_takes_the_cookie_away(client: TestClient, access: AccessStore) -> None:
    sign_in(client, access, Role.VIEWER)
    page = client.get("/", headers=BROWSER).text

    client.post("/sign-out", data={"form_token": form_token(page)})

    assert client.get("/").status_code == 401


@pytest.mark.parametrize(
    "where", ["https://evil.example", "//evil.example", "/\\evil.example", "/\t/evil.example", ""]
)
def test_signing_in_leads_nowhere_else(client: TestClient, access: AccessStore, where: str) -> None:
    token, _ = access.create("ada", Role.VIEWER)

    assert client.post("/sign-in", data={"token": token, "next": where}).headers["location"] == "/"


def test_a_forged_cookie_is_nobodys(client: TestClient, access: AccessStore) -> None:
    token, _ = access.create("ada", Role.VIEWER)
    client.post("/sign-in", data={"token": token})
    good = client.cookies[identity.COOKIE]
    assert client.get("/").status_code == 200

    for forged in (
        "",
        "x",
        good[:-8],
        ("A" if good[0] != "A" else "B") + good[1:],
        good[:40] + ("A" if good[40] != "A" else "B") + good[41:],
    ):
        client.cookies.clear()
        response = client.get("/", headers={"cookie": f"{identity.COOKIE}={forged}"})
        assert response.status_code == 401, forged


def test_guessing_tokens_is_slow(client: TestClient) -> None:
    answers = [client.post("/sign-in", data={"token": "x"}).status_code for _ in range(11)]

    assert answers == [401] * 10 + [429]


# -- acting


def test_a_form_of_another_site_changes_nothing(client: TestClient, access: AccessStore, app: Celery) -> None:
    job = EventsOf(JobKey(tenant=ACME, job_id=uuid4()))
    JobRecorder(app.database).record(job.submitted())
    sign_in(client, access, Role.OPERATOR)
    path = f"/jobs/{job.key.job_id}/cancel"
    token = form_token(client.get(f"/jobs/{job.key.job_id}", headers=BROWSER).text)

    for headers, form in (
        ({}, {}),
        ({}, {"form_token": "0" * 64}),
        ({"sec-fetch-site": "cross-site"}, {"form_token": token}),
    ):
        assert client.post(path, data=form, headers=headers).status_code == 403
    assert status_of(app, job.key) is JobStatus.QUEUED

    done = client.post(path, data={"form_token": token, "reason": "wrong month"})

    assert done.status_code == 303
    assert status_of(app, job.key) is JobStatus.CANCELLED
    [action] = access.actions(ACME)
    assert (action.action, action.outcome, action.reason) == ("cancel", "done", "wrong month")
    assert "wrong month" in client.get(done.headers["location"], headers=BROWSER).text


def test_a_failed_job_is_run_again_and_a_refusal_is_on_record(
    client: TestClient, access: AccessStore, app: Celery
) -> None:
    headers = bearer(access, Role.OPERATOR)
    handle = app.enqueue("parity.add", [1, 2], tenant=ACME)
    path = f"/jobs/{handle.job_id}/retry"
    refused = client.post(path, headers=headers)
    assert refused.status_code == 409
    app.cancel_job(handle.job_id)

    done = client.post(path, data={"as_new": "yes"}, headers=headers)

    assert done.status_code == 303
    sent = UUID(done.headers["location"].partition("?")[0].rpartition("/")[2])
    assert sent != handle.job_id
    assert status_of(app, JobKey(tenant=ACME, job_id=sent)) is JobStatus.QUEUED
    assert [action.outcome for action in access.actions(ACME)] == ["done", "refused"]


# -- what the pages show


def test_the_reason_of_a_failure_is_on_the_overview_and_on_the_jobs_page(
    client: TestClient, access: AccessStore
) -> None:
    headers = bearer(access) | BROWSER

    overview = unescape(client.get("/", headers=headers).text)
    job = unescape(client.get(f"/jobs/{MINE.job_id}", headers=headers).text)

    assert "ConnectionError" in overview
    assert f"/jobs/{MINE.job_id}?tenant={ACME}" in overview
    assert "It failed at attempt 1" in job
    assert '"password": "••••••"' in job


def test_filters_of_the_jobs_page(client: TestClient, access: AccessStore) -> None:
    headers = bearer(access) | BROWSER

    def shown(query: str) -> set[UUID]:
        page = client.get(f"/jobs?{query}", headers=headers).text
        return {key.job_id for key in (MINE, THEIRS) if str(key.job_id) in page}

    assert shown("") == {MINE.job_id, THEIRS.job_id}
    assert shown("status=failed&status=queued&engine=celery&since=1h") == {MINE.job_id, THEIRS.job_id}
    assert shown("status=completed") == set()
    assert shown(f"tenant={ACME}") == {MINE.job_id}
    assert shown("text=ERROR-of-others") == {THEIRS.job_id}
    assert shown("type=type-of-others") == {THEIRS.job_id}
    found = client.get(f"/jobs?text={MINE.job_id}", headers=headers)
    assert found.headers["location"] == f"/jobs/{MINE.job_id}"


@pytest.mark.parametrize(
    "query",
    [
        "status=lost",
        "engine=x",
        "since=1y",
        "limit=0",
        "limit=x",
        "limit=" + "9" * 5000,
        "before=x",
        "before=1_x",
    ],
)
def test_what_cannot_be_asked_is_told(client: TestClient, access: AccessStore, query: str) -> None:
    for path, status in (("/jobs", 400), ("/api/v1/jobs", 422)):
        response = client.get(f"{path}?{query}", headers=bearer(access))

        assert response.status_code == status
        assert response.json()["error"]


@pytest.mark.parametrize("text", ["'; DROP TABLE jobs; --", "%", "\0", "{}", "%(tenant)s", "\ud83d\ude00"])
def test_any_text_can_be_looked_for(client: TestClient, access: AccessStore, text: str) -> None:
    for name in ("text", "type", "queue", "tenant"):
        response = client.get(
            "/api/v1/jobs",
            params={name: text.encode("utf-16", "surrogatepass").decode("utf-16")},
            headers=bearer(access),
        )
        assert (response.status_code, response.json()["jobs"]) == (200, [])


def test_pages_go_on_from_each_other(client: TestClient, access: AccessStore) -> None:
    headers = bearer(access)

    first = client.get("/api/v1/jobs?limit=1", headers=headers).json()
    second = client.get(f"/api/v1/jobs?limit=1&before={first['next']}", headers=headers).json()

    assert [job["job_id"] for job in first["jobs"] + second["jobs"]] == [str(THEIRS.job_id), str(MINE.job_id)]
    assert second["next"] is None


def test_files_beside_the_assets_are_not_served(client: TestClient) -> None:
    assert client.get("/static/css/base.css").status_code == 200
    for path in (
        "/static/../application.py",
        "/static/%2e%2e/application.py",
        "/static/..%2fapplication.py",
        "/static/",
    ):
        response = client.get(path)
        assert response.status_code in {401, 404}, path
        assert "import" not in response.text


# -- where it is served


def test_it_works_under_any_path(app: Celery, access: AccessStore) -> None:
    outer = Starlette(routes=[Mount("/ops/jobs-ui", app=make_dashboard(app))])
    client = TestClient(outer, base_url="https://jobs.example", follow_redirects=False)
    token, _ = access.create("ada", Role.VIEWER)

    assert client.get("/ops/jobs-ui/msp/jobs").headers["location"] == "/ops/jobs-ui/"
    asked = client.get("/ops/jobs-ui/jobs", headers=BROWSER)
    assert asked.headers["location"] == "/ops/jobs-ui/sign-in?next=%2Fops%2Fjobs-ui%2Fjobs"
    done = client.post("/ops/jobs-ui/sign-in", data={"token": token})
    assert done.headers["location"] == "/ops/jobs-ui/"
    page = client.get("/ops/jobs-ui/", headers=BROWSER).text
    links = re.findall(r'(?:href|src|action)="([^"]+)"', page)
    assert [link for link in links if not link.startswith(("/ops/jobs-ui/", "#"))] == []
    for link in set(links) - {"#main", "/ops/jobs-ui/sign-out"}:
        assert client.get(unescape(link), headers=BROWSER).status_code in {200, 303}, link


@pytest.mark.parametrize(
    ("base_url", "client_at", "headers", "status"),
    [
        ("http://localhost:8000", "127.0.0.1", {}, 200),
        ("http://127.0.0.1:8000", "127.0.0.1", {}, 200),
        ("http://localhost:8000", "10.0.0.7", {}, 403),
        ("http://evil.example:8000", "127.0.0.1", {}, 403),
        ("http://localhost:8000", "127.0.0.1", {"x-forwarded-for": "10.0.0.7"}, 403),
    ],
)
def test_without_tokens_only_this_machine_is_served(
    app: Celery, access: AccessStore, base_url: str, client_at: str, headers: dict[str, str], status: int
) -> None:
    local = make_dashboard(app, authenticator=LocalAuthenticator(access))
    client = TestClient(local, base_url=base_url, client=(client_at, 50000))

    assert client.get("/", headers=BROWSER | headers).status_code == status
    assert client.post(f"/jobs/{MINE.job_id}/cancel", headers=headers).status_code == 403


def test_templates_escape_by_default() -> None:
    templates = Path(make_dashboard.__code__.co_filename).parent / "templates"

    assert [path.name for path in templates.iterdir() if "|safe" in path.read_text().replace(" ", "")] == []
