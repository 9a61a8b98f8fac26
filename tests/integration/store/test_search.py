"""A page of jobs is what SQL would give, and reads little however rare what is looked for is."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobbridge.core.keys import Engine, TenantId, job_id_for
from jobbridge.core.status import JobStatus
from jobbridge.store.database import Database
from jobbridge.store.jobs.queries import rare_ones
from jobbridge.store.monitor import search_statements
from jobbridge.store.monitor.search import FoundPage, MonitorStore, Search

#: They share a database that takes a while to fill.
pytestmark = pytest.mark.xdist_group("monitor")

#: Five tenants, two engines, three queues; one job in 41 failed, one in 997 runs; a job a minute.
FILL = """
INSERT INTO jobs (tenant, job_id, task_id, type, status, runner_type, queue, error, created_at,
    completed_at)
SELECT 't' || n % 5, gen_random_uuid(), n::text, 'type-' || n % 3,
    CASE WHEN n % 997 = 0 THEN 'processing' WHEN n % 41 = 0 THEN 'failed' ELSE 'completed' END,
    CASE WHEN n % 4 = 0 THEN 'temporal' WHEN n % 4 = 1 THEN 'pgboss' ELSE 'celery' END, 'queue-' || n % 3,
    CASE WHEN n % 41 = 0 THEN 'ConnectionError: 100% of mail-' || n % 7 END,
    now() - n * interval '1 minute',
    CASE WHEN n % 997 > 0 AND n % 3 > 0 THEN now() - n * interval '50 seconds' END
FROM generate_series(1, 20000) AS n
"""

OLDEST = UUID("0198a3f7-1b2c-7d3e-8f40-5a6b7c8d9e0f")


@pytest.fixture(scope="module")
def database(postgres: Any, migrated_template: str) -> Iterator[Database]:
    database = Database(postgres.create_database("test_monitor", template=migrated_template))
    with database.connection() as connection:
        connection.execute(FILL)
        connection.execute(
            "UPDATE jobs SET job_id = %s, external_id = 'wf-19998' WHERE task_id = '19998'", [OLDEST]
        )
        rename = "UPDATE jobs SET job_id = %s, task_id = 'my-task' WHERE task_id = '19993'"
        connection.execute(rename, [job_id_for("my-task")])
        connection.execute("ANALYZE jobs")
    yield database
    database.close()


def pages(store: MonitorStore, search: Search, *, limit: int) -> list[FoundPage]:
    found, before = list[FoundPage](), None
    while True:
        page = store.page(search, before=before, limit=limit)
        found.append(page)
        if page.next is None:
            return found
        assert before is None or page.next < before, "a search goes on"
        before = page.next


def expected(database: Database, search: Search) -> list[UUID]:
    rows = database.run(
        lambda own: own.execute(
            "SELECT job_id, tenant, status, type, runner_type, queue, created_at, coalesce(error, ''),"
            " CASE WHEN status <> 'processing' THEN coalesce(completed_at, updated_at) END FROM jobs"
            " ORDER BY created_at DESC, job_id DESC"
        ).fetchall()
    )
    return [
        job_id
        for job_id, tenant, status, type_, engine, queue, at, error, ended_at in rows
        if search.tenant in (None, tenant)
        and (search.statuses is None or status in search.statuses)
        and search.type in (None, type_)
        and (search.engine is None or search.engine is Engine.parse(engine))
        and search.queue in (None, queue)
        and (search.since is None or at >= search.since)
        and (search.until is None or at < search.until)
        and (search.ended_since is None or (ended_at is not None and ended_at >= search.ended_since))
        and (search.text is None or search.text.lower() in error.lower())
    ]


NOW = datetime.now(UTC)


def _ago(age: timedelta | None) -> datetime | None:
    return None if age is None else NOW - age


SEARCHES = st.builds(
    Search,
    tenant=st.sampled_from([None, None, TenantId("t1"), TenantId("nobody")]),
    statuses=st.sampled_from(
        [
            None,
            [JobStatus.FAILED],
            [JobStatus.PROCESSING],
            [JobStatus.FAILED, JobStatus.PROCESSING],
            [JobStatus.FAILED, JobStatus.COMPLETED],
            [JobStatus.EXPIRED],
        ]
    ),
    type=st.sampled_from([None, None, "type-1"]),
    engine=st.sampled_from([None, None, Engine.CELERY, Engine.TEMPORAL]),
    queue=st.sampled_from([None, None, "queue-2"]),
    text=st.sampled_from([None, None, "CONNECTION", "100% of", "mail-3", "no_such"]),
    since=st.sampled_from([None, None, timedelta(days=3)]).map(_ago),
    until=st.sampled_from([None, None, timedelta(hours=25, minutes=7)]).map(_ago),
    ended_since=st.sampled_from([None, None, timedelta(days=2)]).map(_ago),
)  # fmt: skip


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    search=SEARCHES,
    limit=st.sampled_from([200, 3000]),
    scan=st.sampled_from([500, 3000]),
    budget=st.sampled_from([timedelta(0), timedelta(milliseconds=5), timedelta(seconds=5)]),
)
def test_the_pages_are_what_sql_gives(
    database: Database, search: Search, limit: int, scan: int, budget: timedelta
) -> None:
    store = MonitorStore(database, scan=scan, budget=budget)

    found = pages(store, search, limit=limit)

    assert [job.job_id for page in found for job in page.jobs] == expected(database, search)
    assert all(len(page.jobs) <= limit for page in found)


def test_a_search_of_a_time_reads_no_further(database: Database) -> None:
    newest = MonitorStore(database).page(Search(), limit=1).jobs[0].created_at
    search = Search(since=newest - timedelta(hours=1))

    [page] = pages(MonitorStore(database, scan=1000), search, limit=500)

    assert [job.job_id for job in page.jobs] == expected(database, search)


def test_a_rare_status_is_on_the_first_page(database: Database) -> None:
    store = MonitorStore(database, scan=100, budget=timedelta(0))

    page = store.page(Search(statuses=[JobStatus.PROCESSING]), limit=50)

    assert len(page.jobs) == 20
    assert page.next is None


def test_a_search_that_ends_early_says_how_far_it_came(database: Database) -> None:
    store = MonitorStore(database, scan=100, budget=timedelta(0))

    page = store.page(Search(text="no_such"), limit=50)

    assert page.jobs == []
    assert page.next is not None
    assert page.searched_to == page.next[0]


def test_a_search_goes_on_while_there_is_time(database: Database) -> None:
    store = MonitorStore(database, scan=100, budget=timedelta(minutes=1))

    [page] = pages(store, Search(text="no_such"), limit=50)

    assert page.next is None


@pytest.mark.parametrize("tenant", [None, TenantId("t3")], ids=["all", "tenant"])
@pytest.mark.parametrize("id_of", ["job", "first digits", "broker", "task"])
def test_a_job_is_found_by_its_ids_however_old_it_is(
    database: Database, id_of: str, tenant: TenantId | None
) -> None:
    store = MonitorStore(database, scan=100, budget=timedelta(0))
    text = {
        "job": str(OLDEST),
        "first digits": str(OLDEST)[:11].upper(),
        "broker": "wf-19998",
        "task": "my-task",
    }
    search = Search(text=text[id_of], tenant=tenant)

    found = pages(store, search, limit=50)

    assert [job.job_id for job in found[0].jobs] == [job_id_for("my-task") if id_of == "task" else OLDEST]
    assert [job.job_id for page in found[1:] for job in page.jobs] == [], "it is shown once"
    assert store.page(Search(text=text[id_of], tenant=TenantId("t1"))).jobs == [], "to nobody else"
    assert store.page(Search(text=text[id_of], since=NOW)).jobs == [], "other filters count, too"


def test_what_an_id_finds_stands_where_its_time_is(database: Database) -> None:
    with database.connection() as connection:
        connection.execute("UPDATE jobs SET error = 'see wf-19998' WHERE task_id IN ('3', '19999')")
        store = MonitorStore(database, scan=100, budget=timedelta(0))
        found = pages(store, Search(text="wf-19998"), limit=2)
        connection.execute("UPDATE jobs SET error = NULL WHERE task_id IN ('3', '19999')")

    assert [[job.task_id for job in page.jobs] for page in found if page.jobs] == [["3", "19998"], ["19999"]]


@pytest.mark.parametrize("tenant", [None, TenantId("t1")], ids=["all", "tenant"])
def test_the_last_failures_are_found_the_latest_first(database: Database, tenant: TenantId | None) -> None:
    since = NOW - timedelta(days=2)
    wanted = expected(database, Search(tenant=tenant, statuses=[JobStatus.FAILED], ended_since=since))

    found = MonitorStore(database).failed(since=since, tenant=tenant, limit=1_000)

    assert sorted(job.job_id for job in found) == sorted(wanted) != []
    ended = [job.completed_at for job in found if job.completed_at is not None]
    assert ended == sorted(ended, reverse=True)
    latest = MonitorStore(database).failed(since=since, tenant=tenant, limit=3)
    assert [job.completed_at for job in latest] == ended[:3]


RARE = {
    "newest_idx": None,
    "jobs_open_idx": [JobStatus.PROCESSING],
    "unsuccessful_idx": [JobStatus.EXPIRED, JobStatus.FAILED],
}


@pytest.mark.parametrize("tenant", [None, "t1"], ids=["all", "tenant"])
@pytest.mark.parametrize("index", RARE)
def test_each_step_follows_an_index(database: Database, index: str, tenant: str | None) -> None:
    told = _explained(database, tenant, RARE[index])

    for step, own in (
        ("scan", index),  # of the tenant, or of all: with five tenants both are good
        ("end_of_scan", index),
        ("failed", "jobs_unsuccessful_ended_idx"),
        ("by_ids", "jobs_engines_id_idx"),
    ):
        assert own in told[step], told[step]
        assert "Seq Scan on jobs" not in told[step], told[step]


def _explained(database: Database, tenant: str | None, statuses: list[JobStatus] | None) -> dict[str, str]:
    of = search_statements.MINE if tenant else ""
    kinds = rare_ones(statuses)
    newest = MonitorStore(database).page(Search(), limit=1).jobs[0]
    values = {
        "tenant": tenant,
        "statuses": [status.value for status in statuses or JobStatus],
        "before_at": newest.created_at,
        "before_id": newest.job_id,
        "scan": 1000,
        "limit": 51,
        "since": newest.created_at - timedelta(hours=2),
        "text": "01234567",
        "first_id": UUID(int=0x01234567 << 96),
        "last_id": UUID(int=0x01234568 << 96),
        "derived_id": UUID(int=0),
    }
    filters = "status = ANY(%(statuses)s)"
    statements = {
        "scan": search_statements.scan(of, kinds).format(filters=filters),
        "end_of_scan": search_statements.end_of_scan(of, kinds),
        "failed": search_statements.failed(of),
        "by_ids": search_statements.by_ids(of).format(filters=filters),
    }
    with database.connection() as connection:
        return {
            name: "\n".join(row for (row,) in connection.execute(f"EXPLAIN {statement}", values).fetchall())
            for name, statement in statements.items()
        }


@pytest.mark.parametrize("copies", [1, 7, 60])
def test_what_is_hidden_of_an_error_is_not_found(postgres: Any, migrated_template: str, copies: int) -> None:
    """By its beginnings, one letter after the other, somebody could find out a password."""
    database = Database(postgres.create_database(f"test_hidden_{copies}", template=migrated_template))
    with database.connection() as connection:
        connection.execute(
            """
            INSERT INTO jobs (tenant, job_id, task_id, type, status, runner_type, queue, error, created_at)
            SELECT 'acme', gen_random_uuid(), n::text, 'mail', 'failed', 'celery', 'celery',
                CASE WHEN n %% 100 < %s THEN 'Refused: password=hunter2 at mail-1' ELSE 'hunter2 is no host' END,
                now() - n * interval '1 second'
            FROM generate_series(0, 399) AS n
            """,
            [copies],
        )
    store = MonitorStore(database, scan=100, budget=timedelta(minutes=1))

    def ended(text: str) -> list[tuple[int, Any, Any]]:
        found = pages(store, Search(text=text), limit=10)
        return [(len(page.jobs), page.next, page.searched_to) for page in found]

    def count(text: str) -> int:
        return sum(number for number, _, _ in ended(text))

    failures = 4 * copies
    assert count("hunter2") == 400 - failures, "where it is shown, it is found"
    assert (
        count("password=")
        == count("Refused: PASSWORD=\u2022\u2022\u2022\u2022\u2022\u2022 at mail-1")
        == failures
    )
    assert count("\u2022\u2022") == failures
    assert ended("=hunter2 at") == ended("=hunter3 at"), "nor does the way to the end tell of it"
    assert count("=h") == 0
    database.close()
