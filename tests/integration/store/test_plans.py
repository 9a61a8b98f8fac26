"""No page reads a large table as a whole: each route is asked, and Postgres tells the plan of every statement.

The routes are those of the table, so a new one that scans fails here. What a statement may read as a whole is small
however many jobs there are.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import psycopg
import pytest
from psycopg import sql
from starlette.testclient import TestClient

from jobbridge import Celery
from jobbridge.core.access import Role
from jobbridge.core.keys import TenantId
from jobbridge.dashboard.access.request_context import Rule
from jobbridge.dashboard.application import make_dashboard
from jobbridge.diagnosis.checks import check_all
from jobbridge.settings import load_settings
from jobbridge.store.access.tokens import AccessStore
from jobbridge.store.counts.counts import CountStore
from tests.integration.dashboard.test_pages import ACME, ASKED, BROWSER, MINE, address, bearer
from tests.parity.tasks import make_app

#: They share a database that takes a while to fill.
pytestmark = pytest.mark.xdist_group("plans")

#: With as many rows as there are jobs, hours, actions, or messages.
LARGE = {
    "jobs", "job_details", "job_hours", "job_flow", "job_audit", "job_schedule_fires", "job_requests", "job_links",
    "job_keys", "job_families", "job_family_members", "message",
}  # fmt: skip

FILL: Sequence[str] = (
    # 40 tenants, in a month; few that have failed, fewer that run, wait, or were cancelled.
    """
    INSERT INTO jobs (tenant, job_id, task_id, type, status, runner_type, queue, external_id, error, created_at,
        started_at, completed_at, unsuccessful)
    SELECT 'tenant-' || n % 40, gen_random_uuid(), n::text, 'type-' || n % 7,
        CASE WHEN n % 5003 = 0 THEN 'processing' WHEN n % 4001 = 0 THEN 'queued' WHEN n % 997 = 0 THEN 'cancelled'
            WHEN n % 41 = 0 THEN 'failed' ELSE 'completed' END,
        CASE WHEN n % 3 = 0 THEN 'temporal' ELSE 'celery' END, 'queue-' || n % 3, 'wf-' || n,
        CASE WHEN n % 41 = 0 THEN 'ConnectionError: of mail-' || n % 7 END, now() - n * interval '1 minute',
        now() - n * interval '1 minute',
        CASE WHEN n % 5003 > 0 AND n % 4001 > 0 THEN now() - n * interval '1 minute' END,
        CASE WHEN n % 5003 > 0 AND n % 4001 > 0 THEN
            CASE WHEN n % 997 = 0 THEN 'cancelled' WHEN n % 41 = 0 THEN 'failed' END END
    FROM generate_series(1, 40000) AS n
    """,
    """
    INSERT INTO job_details (tenant, job_id, step_name, status, retry_count)
    SELECT tenant, job_id, CASE WHEN random() < 0.001 THEN 'fallback' ELSE 'attempt' END, 'completed', 1 FROM jobs
    """,
    """
    INSERT INTO job_audit (at, actor, action, outcome, of_tenant)
    SELECT now() - n * interval '1 minute', 'somebody', 'cancel', 'done', 'tenant-' || n % 40
    FROM generate_series(1, 20000) AS n
    """,
    """
    INSERT INTO job_schedule_fires (tenant, schedule_id, fire_at, trigger, outcome)
    SELECT 'tenant-' || n % 40, gen_random_uuid(), now() - n * interval '1 minute', 'schedule', 'enqueued'
    FROM generate_series(1, 5000) AS n
    """,
    """
    INSERT INTO job_families (tenant, parent_id, task, options, concurrency)
    SELECT tenant, job_id, type, '{}', 1 FROM jobs LIMIT 5000
    """,
    """
    INSERT INTO job_family_members (tenant, child_id, parent_tenant, parent_id, position, item_key, generation,
        arguments, status)
    SELECT tenant, job_id, tenant, gen_random_uuid(), 1, 'key', 1, '[]', 'completed' FROM jobs LIMIT 5000
    """,
)
QUERIES = (
    "", "status=failed", "status=processing&status=expired", "type=type-3&queue=queue-1", "text=mail-3",
    "text=wf-39999", "text=01234567-89ab", "status=failed&text=nothing", "since=24h", "engine=temporal",
    "from=2026-01-01T00:00&to=2036-01-01T00:00", "status=cancelled&since=7d", "status=scheduled&type=type-1",
)  # fmt: skip


_CONNECT = psycopg.Connection.connect.__func__  # type: ignore[attr-defined]  # of a class method


class Plans:
    """What Postgres tells of the statements of this process."""

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []

    def connect(
        self, kind: type[psycopg.Connection[Any]], *given: Any, **named: Any
    ) -> psycopg.Connection[Any]:
        """Open a connection as psycopg does, and listen to what it is told."""
        connection = _CONNECT(kind, *given, **named)
        connection.add_notice_handler(self._take)
        return connection

    def _take(self, notice: psycopg.errors.Diagnostic) -> None:
        _, found, plan = (notice.message_primary or "").partition("plan:\n")
        if found:
            self.told.append(json.loads(plan))

    def scans(self) -> list[str]:
        """Give what was scanned since the last time: tables, each with the statement."""
        told, self.told = self.told, []
        return [
            f"{table}: {' '.join(plan['Query Text'].split())}"
            for plan in told
            for table in _scanned(plan["Plan"], is_cut=False)
        ]


def _scanned(node: dict[str, Any], *, is_cut: bool) -> Iterator[str]:
    """Name the tables that are read in no order, or in order, but all of them."""
    kind = node["Node Type"]
    table = node.get("Relation Name")
    if table in LARGE and (
        "Seq Scan" in kind or ("Index Cond" not in node and "Index" in kind and not is_cut)
    ):
        yield table
    cuts = kind == "Limit" or (is_cut and kind not in {"Sort", "Aggregate", "Hash"})
    for child in node.get("Plans", []):
        yield from _scanned(child, is_cut=cuts)


@pytest.fixture(scope="module")
def plans() -> Iterator[Plans]:
    plans = Plans()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(psycopg.Connection, "connect", classmethod(plans.connect))
        yield plans


@pytest.fixture(scope="module")
def app(postgres: Any, migrated_template: str, plans: Plans) -> Iterator[Celery]:
    url = postgres.create_database("test_plans", template=migrated_template)
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in FILL:
            connection.execute(sql.SQL(statement))
        connection.execute(
            "UPDATE jobs SET tenant = %s, job_id = %s WHERE task_id = '41'", [ACME, MINE.job_id]
        )
        _tell_plans(connection)
    app = make_app(settings=load_settings({"DATABASE_URL": url, "TEMPORAL_ADDRESS": "127.0.0.1:1"}))
    app.finalize()
    app.schedules.create("parity.total", "0 2 * * *", [1], name="nightly", tenant=ACME)
    while CountStore(app.database).fold():
        pass
    with app.database.connection() as own:
        own.execute("ANALYZE")
    plans.scans()
    yield app
    app.close()


def _tell_plans(connection: psycopg.Connection[Any]) -> None:
    settings = {
        "session_preload_libraries": "auto_explain",
        "auto_explain.log_min_duration": "0",
        "auto_explain.log_format": "json",
        "auto_explain.log_level": "notice",
    }
    connection.execute("LOAD 'auto_explain'")
    for name, value in settings.items():
        change = sql.SQL("ALTER DATABASE test_plans SET {} = {}")
        connection.execute(change.format(sql.SQL(name), sql.Literal(value)))


@pytest.fixture(scope="module")
def client(app: Celery) -> TestClient:
    return TestClient(make_dashboard(app), base_url="https://jobs.example", follow_redirects=False)


def _pages() -> list[Rule]:
    return [rule for rule in ASKED if not rule.changes]


@pytest.mark.parametrize("tenant", [None, ACME], ids=["all", "tenant"])
def test_no_page_scans_a_large_table(
    client: TestClient, app: Celery, plans: Plans, tenant: TenantId | None
) -> None:
    headers = bearer(AccessStore(app.database), Role.ADMIN, tenant) | BROWSER
    scans: list[str] = []
    asked = 0
    for rule in (rule for rule in _pages() if not (tenant and rule.is_global)):
        for query in ("", "tenant=tenant-7") if tenant is None else ("",):
            path = f"{address(rule)}?{query}"
            response = client.get(path, headers=headers)
            asked += len(plans.told)
            assert response.status_code in {200, 404, 409}, (path, response.text)
            scans += [f"{path} {scan}" for scan in plans.scans()]

    assert scans == []
    assert asked > len(_pages()), "Postgres tells its plans"


@pytest.mark.parametrize("query", QUERIES)
def test_no_search_scans_a_large_table(client: TestClient, app: Celery, plans: Plans, query: str) -> None:
    headers = bearer(AccessStore(app.database), Role.ADMIN) | BROWSER
    for path in (f"/jobs?{query}", f"/jobs?tenant=tenant-7&{query}", f"/api/v1/jobs?{query}"):
        assert client.get(path, headers=headers).status_code == 200
        assert plans.scans() == []


def test_doctor_scans_no_large_table(app: Celery, plans: Plans) -> None:
    check_all(app, app.settings)

    assert plans.told != []
    assert plans.scans() == []


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT count(*) FROM jobs",
        "SELECT * FROM jobs WHERE status = 'failed'",
        "SELECT count(tenant) FROM job_hours",
    ],
)
def test_a_scan_would_be_seen(app: Celery, plans: Plans, statement: str) -> None:
    plans.scans()
    with app.database.connection() as connection:
        connection.execute(sql.SQL(statement))

    assert len(plans.scans()) == 1
