"""The pages overview, tenants and health: their numbers are those of SQL, and they say what somebody has to do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Any
from uuid import uuid4

import pytest
from psycopg import sql
from starlette.testclient import TestClient

from jobbridge import Celery
from jobbridge.broker.admin import dead_letters as dead
from jobbridge.core.access import Role
from jobbridge.core.keys import SYSTEM_TENANT, Engine, TenantId
from jobbridge.core.status import JobStatus
from jobbridge.dashboard import findings_cache
from jobbridge.dashboard.application import make_dashboard
from jobbridge.recording import JobRecorder
from jobbridge.settings import load_settings
from jobbridge.store.access.tokens import AccessStore
from jobbridge.store.counts.counts import CountStore
from jobbridge.store.tenants import overview as tenant_list
from jobbridge.store.tenants.overview import TenantList
from tests.job_events import EventsOf, new_key
from tests.parity.tasks import make_app

pytestmark = pytest.mark.usefixtures("first_look_is_waited_for")

ACME, OTHER = TenantId("acme"), TenantId("other")
BROWSER = {"accept": "text/html"}

#: Ends that are an hour or more apart, with all there can be.
FILL = """
INSERT INTO jobs (
    tenant, job_id, task_id, type, status, runner_type, queue, error, created_at, started_at, completed_at
)
SELECT CASE n % 3 WHEN 0 THEN 'other' ELSE 'acme' END, gen_random_uuid(), 'x', 'type-' || n % 2,
    (ARRAY['completed', 'completed', 'failed', 'cancelled', 'completed'])[1 + n % 5],
    CASE n % 4 WHEN 0 THEN 'temporal' ELSE 'celery' END, 'celery',
    CASE n % 5 WHEN 2 THEN 'ConnectionError: smtp://ada:secret@mail refused mail ' || n END,
    at, at, at + n * interval '1 second'
FROM (SELECT n, now() - n * interval '3 hours' AS at FROM generate_series(1, 300) AS n) AS each
"""


@pytest.fixture
def app(database_url: str) -> Iterator[Celery]:
    app = make_app(settings=load_settings({"DATABASE_URL": database_url}))
    app.finalize()
    yield app
    app.close()


@pytest.fixture
def access(app: Celery) -> AccessStore:
    return AccessStore(app.database)


@pytest.fixture
def client(app: Celery) -> TestClient:
    return TestClient(make_dashboard(app), base_url="https://jobs.example", follow_redirects=False)


class Reader:
    """Reads pages as somebody."""

    def __init__(self, client: TestClient, access: AccessStore, role: Role, tenant: TenantId | None) -> None:
        token, _ = access.create(str(uuid4()), role, tenant=tenant)
        self._client, self.headers = client, BROWSER | {"authorization": f"Bearer {token}"}

    def page(self, path: str) -> str:
        response = self._client.get(path, headers=self.headers)
        assert response.status_code == 200, response.text
        return unescape(response.text)

    def post(self, path: str, **form: str) -> tuple[int, str]:
        response = self._client.post(path, data=form, headers=self.headers)
        return response.status_code, response.text


@pytest.fixture
def admin(client: TestClient, access: AccessStore) -> Reader:
    return Reader(client, access, Role.ADMIN, None)


@pytest.fixture
def of_acme(client: TestClient, access: AccessStore) -> Reader:
    return Reader(client, access, Role.ADMIN, ACME)


def ask(app: Celery, statement: str, **params: Any) -> list[Any]:
    return app.database.run(lambda own: own.execute(statement.encode(), params).fetchall())


def fill(app: Celery) -> None:
    app.database.run(lambda own: own.execute(FILL))


def counts_of(page: str) -> dict[str, int]:
    found = re.findall(r'data-count="([^"]+)"[^>]*>([^<]+)<', page)
    return {name: int(number.replace("\u202f", "")) for name, number in found}


def column(page: str, field: str) -> list[str]:
    return re.findall(rf'data-{field}="([^"]*)"', page)


# -- the overview


@pytest.mark.parametrize("is_folded", [True, False])
def test_the_numbers_are_those_of_sql(app: Celery, admin: Reader, of_acme: Reader, is_folded: bool) -> None:
    fill(app)
    if is_folded:
        CountStore(app.database).fold()

    for reader, path, where in (
        (admin, "/?range=", "true"),
        (admin, f"/?tenant={ACME}&range=", "tenant = 'acme'"),
        (of_acme, "/?range=", "tenant = 'acme'"),
    ):
        rows = ask(app, f"SELECT runner_type, status, count(*) FROM jobs WHERE {where} GROUP BY 1, 2")
        shown = counts_of(reader.page(path + "24h"))
        for engine in ("celery", "temporal"):
            known = {status: jobs for of, status, jobs in rows if of == engine}
            shown_by_engine = {name.partition(":")[2] for name in shown if name.startswith(f"{engine}:")}
            assert len(shown_by_engine) == 7
            for shown_status in shown_by_engine:
                assert shown[f"{engine}:{shown_status}"] == known.get(shown_status, 0)
        for status in JobStatus:
            assert shown[status] == sum(jobs for _, of, jobs in rows if of == status)
        for name, begin, slots in (
            ("24h", "date_trunc('hour', now(), 'UTC') - interval '23 hours'", 24),
            ("7d", "date_trunc('hour', now(), 'UTC') - interval '167 hours'", 168),
            ("30d", "date_trunc('day', now(), 'UTC') - interval '29 days'", 30),
        ):
            page = reader.page(path + name)
            ended = dict(
                ask(
                    app,
                    f"SELECT status, count(*) FROM jobs WHERE completed_at >= {begin} AND {where} GROUP BY 1",
                )
            )
            for field, end in (("completed", "completed"), ("failed", "failed"), ("other", "cancelled")):
                values = [int(value) for value in column(page, field)]
                assert (len(values), sum(values)) == (slots, ended.get(end, 0)), (name, field)
            assert len([value for value in column(page, "took-p50") if value]) == len(
                ask(
                    app,
                    f"""
                    SELECT DISTINCT date_trunc('{"day" if name == "30d" else "hour"}', completed_at, 'UTC')
                    FROM jobs WHERE completed_at >= {begin} AND {where}
                    """,
                )
            )
            assert "<rect" in page


def test_a_time_that_is_not_offered_is_told(client: TestClient, admin: Reader) -> None:
    response = client.get("/?range=1y", headers=admin.headers)

    assert response.status_code == 400
    assert "24h, 7d, 30d" in response.text


def test_the_page_asks_for_itself_again_when_jobs_change(admin: Reader) -> None:
    page = admin.page(f"/?range=7d&tenant={ACME}")

    assert f'id="overview" hx-get="/?tenant={ACME}&range=7d" hx-select="#overview"' in page
    assert 'hx-trigger="jobs:changed from:body, jobs:reset from:body"' in page
    ids = re.findall(r'\sid="([^"]+)"', page)
    assert len(ids) == len(set(ids))


def test_failures_that_are_alike_are_one_line_that_leads_to_the_newest(
    app: Celery, admin: Reader, of_acme: Reader
) -> None:
    fill(app)

    page = admin.page("/")

    rows = ask(
        app, "SELECT job_id FROM jobs WHERE status = 'failed' AND created_at > now() - interval '1 day'"
    )
    lines = re.findall(r'<tr id="failure-([^"]+)">\s*<td class="number">(\d+)', page)
    assert sum(int(jobs) for _, jobs in lines) == len(rows) == 2
    assert {job_id for job_id, _ in lines} <= {str(job_id) for (job_id,) in rows}
    assert "ConnectionError: smtp://ada:••••••@mail refused mail 2" in page
    assert "secret" not in page
    assert f"/jobs/{lines[0][0]}?tenant=" in page
    assert "No job that was made within the last 24 hours has failed." not in of_acme.page("/")


def test_nobody_waits_for_the_first_look_at_large_tables(
    app: Celery, client: TestClient, admin: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(app)  # else the page leads to the first job, and reads which workers there are
    monkeypatch.setattr(findings_cache, "PATIENCE", 0.01)
    look = client.app.state.dashboard.check_up.quick  # type: ignore[attr-defined]  # FastAPI's
    with app.database.connection() as own, own.transaction():
        own.execute("LOCK TABLE job_workers")  # the look takes as long as this
        overview, health = admin.page("/"), admin.page("/health")
        assert look.is_under_way
    look.soon(patience=60)

    assert "Still looking" in overview
    assert "every 2s" in overview
    assert "being looked for" in health
    for path in ("/", "/health"):
        assert re.findall("Still looking|every 2s|being looked for", admin.page(path)) == []


def test_what_needs_attention_is_there_with_where_to_go(
    app: Celery, admin: Reader, of_acme: Reader, client: TestClient, access: AccessStore
) -> None:
    empty = admin.page("/")
    assert "Send a job: <code>jobbridge enqueue" in empty
    assert "Nothing is stuck, overdue or without a worker." in empty
    app.enqueue("parity.add", [1, 2], tenant=OTHER)
    app.tenants.suspend(ACME, reason="has not paid", suspended_by="ada")
    _dead_letter(app)
    new = TestClient(make_dashboard(app), base_url="https://jobs.example")  # nothing is remembered

    page = Reader(new, access, Role.VIEWER, None).page("/")

    alerts = re.findall(r'<li class="notice (\w+)"><div><strong><a href="([^"]+)">([^<]+)', page)
    assert alerts == [
        ("bad", "/workers", "Queues nobody serves"),
        ("warn", "/tenants?state=suspended", "Suspended tenants"),
        ("warn", "/jobs?status=failed&since=24h", "Dead letters"),
    ]
    assert "No worker serves what waits: 1 parity.add (celery) in the queue 'celery'" in page
    mine = of_acme.page("/")
    assert re.findall(r'<li class="notice (\w+)"><div><strong><a href="([^"]+)">([^<]+)', mine) == [
        ("bad", "/jobs?status=skipped", "Suspended")
    ]
    assert "has not paid" in mine
    assert "parity.add" not in mine


def _dead_letter(app: Celery) -> None:
    app.database.run(
        lambda own: own.execute(
            """
            INSERT INTO jobbridge_broker.dead_letters (id, queue, reason, priority, deliveries, published_at, headers,
                properties, body)
            VALUES (1, 'celery', 'too_many_deliveries', 0, 5, now(), '{}', '{}', '')
            """
        )
    )


def test_a_tenant_is_told_of_its_jobs_that_are_stuck_or_fell_back(
    app: Celery, of_acme: Reader, client: TestClient
) -> None:
    recorder = JobRecorder(app.database)
    jobs = {tenant: EventsOf(new_key(tenant)) for tenant in (ACME, OTHER)}
    fallen = {tenant: EventsOf(new_key(tenant), Engine.TEMPORAL) for tenant in (ACME, OTHER)}
    for tenant in (ACME, OTHER):
        recorder.record(jobs[tenant].submitted())
        recorder.record(jobs[tenant].started(worker_number=1))
        recorder.record(fallen[tenant].submitted(status=JobStatus.PENDING))
        assert recorder.record(fallen[tenant].fell_back()).applied
    app.database.run(
        lambda own: own.execute(
            """
            UPDATE jobs SET updated_at = now() - interval '1 hour' WHERE status = 'processing';
            INSERT INTO job_details (tenant, job_id, step_name, status)
            SELECT tenant, job_id, 'fallback', 'completed' FROM jobs WHERE status = 'queued'
            """
        )
    )

    page = of_acme.page("/")

    assert re.findall(r'<li class="notice (\w+)"><div><strong><a href="([^"]+)">([^<]+)', page) == [
        ("bad", "/jobs?status=processing", "Stuck jobs"),
        ("warn", "/jobs?engine=celery&since=24h", "Fallen back"),
    ]
    for known in (jobs, fallen):
        assert f'<a href="/jobs/{known[ACME].key.job_id}">' in page
        assert str(known[OTHER].key.job_id) not in page


def test_a_schedule_that_did_not_fire_is_told_to_its_tenant(
    app: Celery, of_acme: Reader, admin: Reader
) -> None:
    for tenant in (ACME, OTHER):
        app.schedules.create("parity.add", "24 hours", name=f"nightly of {tenant}", tenant=tenant)
    app.database.run(lambda own: own.execute("UPDATE job_schedules SET due_at = now() - interval '2 hours'"))

    page = of_acme.page("/")

    assert "'nightly of acme' was to fire 2 h ago, and did not." in page
    assert "nightly of other" not in page
    assert "nightly of other" in admin.page("/")


# -- tenants


def test_each_tenant_has_its_counts(app: Celery, admin: Reader) -> None:
    fill(app)
    app.tenants.suspend(OTHER, reason="has not paid", suspended_by="ada")

    lines = {line.tenant: line for line in TenantList(app.database).page().tenants}

    for tenant in (ACME, OTHER):
        counted = ask(
            app, "SELECT status, count(*) FROM jobs WHERE tenant = %(tenant)s GROUP BY 1", tenant=tenant
        )
        assert lines[tenant].counts == {JobStatus(status): jobs for status, jobs in counted}
        [(newest,)] = ask(app, "SELECT max(created_at) FROM jobs WHERE tenant = %(tenant)s", tenant=tenant)
        assert lines[tenant].newest_job_at == newest
    assert (lines[ACME].suspended_at, lines[OTHER].reason, lines[OTHER].suspended_by) == (
        None, "has not paid", "ada",
    )  # fmt: skip
    page = admin.page("/tenants")
    assert f'<a href="/?tenant={ACME}">acme</a>' in page
    assert "by ada: has not paid" in page


def test_tenants_are_listed_a_page_at_a_time(app: Celery, admin: Reader) -> None:
    names = [f"tenant-{n:03}" for n in range(120)]
    app.database.run(
        lambda own: own.execute(
            """
            INSERT INTO jobs (tenant, job_id, task_id, type, status, runner_type)
            SELECT name, gen_random_uuid(), 'x', 'x', 'queued', 'celery' FROM unnest(%s::text[]) AS name
            """,
            [names],
        )
    )
    seen: list[str] = []
    path: str | None = "/tenants?text=TENANT"
    while path is not None:
        page = admin.page(path)
        seen += re.findall(r'<th scope="row"><a [^>]+>([^<]+)', page)
        found = re.search(r'<a rel="next" href="([^"]+)"', page)
        path = found[1] if found else None

    assert seen == names
    assert re.findall(r'<th scope="row"><a [^>]+>([^<]+)', admin.page("/tenants?text=t-011")) == [names[11]]
    assert "No such tenant." in admin.page("/tenants?state=suspended")


def test_an_admin_suspends_a_tenant_and_resumes_it(app: Celery, access: AccessStore, admin: Reader) -> None:
    assert admin.post("/tenants/suspend", tenant=ACME, reason="has not paid")[0] == 303
    suspension = app.tenants.suspension(ACME)
    assert suspension is not None
    assert suspension.reason == "has not paid"
    assert admin.post("/tenants/suspend", tenant=ACME)[0] == 303
    assert admin.post("/tenants/resume", tenant=ACME)[0] == 303
    assert app.tenants.suspension(ACME) is None

    assert admin.post("/tenants/suspend", tenant=SYSTEM_TENANT)[0] == 409
    assert admin.post("/tenants/suspend")[0] == 400

    noted = [(action.action, action.outcome, action.tenant) for action in reversed(access.actions())]
    assert noted == [
        ("suspend", "done", ACME),
        ("suspend", "was suspended before", ACME),
        ("resume", "done", ACME),
        ("suspend", "refused", SYSTEM_TENANT),
        ("suspend", "refused", None),
    ]


def test_tenants_are_found_along_indexes(app: Celery) -> None:
    app.database.run(
        lambda own: own.execute(
            """
            INSERT INTO job_counts (tenant, engine, status, jobs)
            SELECT 't' || n / 4, 'celery', n % 4, 1 FROM generate_series(1, 20000) AS n;
            INSERT INTO jobs (tenant, job_id, task_id, type, status, runner_type)
            SELECT 't' || n % 1000, gen_random_uuid(), 'x', 'x', 'completed', 'celery'
            FROM generate_series(1, 20000) AS n;
            TRUNCATE job_count_changes; ANALYZE job_counts; ANALYZE jobs
            """
        )
    )
    asked = {"after": "t42", "text": "7", "limit": 51, "tenants": [f"t{n}" for n in range(50)]}

    for statement in (tenant_list.NAMES, tenant_list.COUNTS):
        rows = app.database.run(
            lambda own, asked_for=statement: own.execute(sql.SQL("EXPLAIN ") + sql.SQL(asked_for), asked).fetchall()  # type: ignore[misc]
        )  # fmt: skip
        plan = "\n".join(line for (line,) in rows)
        assert "Seq Scan on jobs" not in plan
        assert "Seq Scan on job_counts" not in plan, plan
    app.database.run(lambda own: dead.dead_lately(own, within=timedelta(days=1)))


# -- health


def look_at_all(client: TestClient) -> None:
    """Wait for the whole look."""
    client.app.state.dashboard.check_up.whole.soon(patience=60)  # type: ignore[attr-defined]  # FastAPI's


def test_bad_findings_come_first_with_what_to_do(app: Celery, client: TestClient, admin: Reader) -> None:
    app.enqueue("parity.add", [1, 2], tenant=ACME)

    first = admin.page("/health")
    look_at_all(client)
    second = admin.page("/health")

    assert "the tables only" in first
    assert 'hx-trigger="every 1s"' in first
    assert "the tables only" not in second
    assert "hx-trigger" not in second
    assert second.index("<h3>workers</h3>") < second.index("</span> database</h3>")
    assert '<code class="command">celery -A APP worker -Q celery</code>' in second


def test_it_is_looked_at_again_when_wanted(client: TestClient, admin: Reader) -> None:
    admin.page("/health")
    look_at_all(client)
    before = re.findall(r'datetime="([^"]+)"', admin.page("/health"))

    response = client.get("/health?again=yes", headers=admin.headers)

    assert response.headers["location"] == "/health"
    admin.page("/health")
    look_at_all(client)
    after = re.findall(r'datetime="([^"]+)"', admin.page("/health"))
    assert before < after
    assert datetime.fromisoformat(after[0]) > datetime.now(UTC) - timedelta(minutes=1)
