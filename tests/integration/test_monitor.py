"""A page of jobs is what SQL would give, and reads little however rare what is looked for is."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobbridge.core.keys import Engine, TenantId
from jobbridge.core.status import JobStatus
from jobbridge.store import monitor
from jobbridge.store.counting import CountStore
from jobbridge.store.database import Database
from jobbridge.store.monitor import FoundPage, MonitorStore, Search

#: Five tenants, two engines, three queues; one job in 41 failed, one in 997 runs; a job a minute.
FILL = """
INSERT INTO jobs (tenant, job_id, task_id, type, status, runner_type, queue, error, created_at)
SELECT 't' || n % 5, gen_random_uuid(), n::text, 'type-' || n % 3,
    CASE WHEN n % 997 = 0 THEN 'processing' WHEN n % 41 = 0 THEN 'failed' ELSE 'completed' END,
    CASE WHEN n % 4 = 0 THEN 'temporal' WHEN n % 4 = 1 THEN 'pgboss' ELSE 'celery' END, 'queue-' || n % 3,
    CASE WHEN n % 41 = 0 THEN 'ConnectionError: 100% of mail-' || n % 7 END,
    now() - n * interval '1 minute'
FROM generate_series(1, 20000) AS n
"""


@pytest.fixture(scope="module")
def database(postgres: Any, migrated_template: str) -> Iterator[Database]:
    database = Database(postgres.create_database("test_monitor", template=migrated_template))
    with database.connection() as connection:
        connection.execute(FILL)
        CountStore(database).fold(limit=15_000)  # and some not
        for table in ("jobs", "job_hours", "job_count_changes"):
            connection.execute(f"ANALYZE {table}")
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
            "SELECT job_id, tenant, status, type, runner_type, queue, created_at, coalesce(error, '') FROM jobs"
            " ORDER BY created_at DESC, job_id DESC"
        ).fetchall()
    )
    return [
        job_id
        for job_id, tenant, status, type_, engine, queue, at, error in rows
        if search.tenant in (None, tenant)
        and (search.statuses is None or status in search.statuses)
        and search.type in (None, type_)
        and (search.engine is None or search.engine is Engine.parse(engine))
        and search.queue in (None, queue)
        and (search.since is None or at >= search.since)
        and (search.text is None or search.text.lower() in error.lower())
    ]


SEARCHES = st.builds(
    Search,
    tenant=st.sampled_from([None, None, TenantId("t1"), TenantId("nobody")]),
    statuses=st.sampled_from(
        [
            None,
            [JobStatus.FAILED],
            [JobStatus.PROCESSING],
            [JobStatus.FAILED, JobStatus.PROCESSING],
            [JobStatus.EXPIRED],
        ]
    ),
    type=st.sampled_from([None, None, "type-1"]),
    engine=st.sampled_from([None, None, Engine.CELERY, Engine.TEMPORAL]),
    queue=st.sampled_from([None, None, "queue-2"]),
    text=st.sampled_from([None, None, "CONNECTION", "100% of", "mail-3", "no_such"]),
)  # fmt: skip


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    search=SEARCHES,
    limit=st.sampled_from([200, 3000]),
    scan=st.sampled_from([500, 3000]),
    cells=st.sampled_from([20, 1000]),
)
def test_the_pages_are_what_sql_gives(
    database: Database, search: Search, limit: int, scan: int, cells: int
) -> None:
    found = pages(MonitorStore(database, scan=scan, cells=cells), search, limit=limit)

    assert [job.job_id for page in found for job in page.jobs] == expected(database, search)
    assert all(len(page.jobs) <= limit for page in found)


def test_a_search_of_a_time_reads_no_further(database: Database) -> None:
    newest = MonitorStore(database).page(Search(), limit=1).jobs[0].created_at
    search = Search(since=newest - timedelta(hours=1))

    [page] = pages(MonitorStore(database, scan=1000), search, limit=500)

    assert [job.job_id for job in page.jobs] == expected(database, search)


def test_a_rare_status_is_on_the_first_page(database: Database) -> None:
    page = MonitorStore(database, scan=100).page(Search(statuses=[JobStatus.PROCESSING]), limit=50)

    assert len(page.jobs) == 20
    assert page.next is None


def test_a_search_that_ends_early_says_how_far_it_came(database: Database) -> None:
    page = MonitorStore(database, scan=100).page(Search(text="no_such"), limit=50)

    assert page.jobs == []
    assert page.next is not None
    assert page.searched_to == page.next[0]


@pytest.mark.parametrize("search", [Search(), Search(tenant=TenantId("t1"))], ids=["all", "tenant"])
def test_each_step_follows_an_index(database: Database, search: Search) -> None:
    told = _explained(database, search)

    for step, index in (
        ("scan", "newest_idx"),  # of the tenant, or of all: with five tenants both are good
        ("hours", "job_hours_"),
        ("in_cells", "newest_idx"),
    ):
        assert index in told[step], told[step]
        assert "Seq Scan on jobs" not in told[step], told[step]


def _explained(database: Database, search: Search) -> dict[str, str]:
    of = monitor._MINE if search.tenant else ""
    newest = MonitorStore(database).page(Search(), limit=1).jobs[0]
    values = {
        "tenant": search.tenant,
        "statuses": ["processing"],
        "before_at": newest.created_at,
        "before_id": newest.job_id,
        "scan": 1000,
        "limit": 51,
        "cells": 1000,
        "first_hour": newest.created_at - timedelta(hours=2),
        "last_hour": newest.created_at,
    }
    filters = "status = ANY(%(statuses)s)"
    statements = {
        "scan": monitor._scan(of).format(filters=filters),
        "hours": monitor._hours(of),
        "in_cells": monitor._in_cells(of, "").format(filters=filters),
    }
    with database.connection() as connection:
        return {
            name: "\n".join(row for (row,) in connection.execute(f"EXPLAIN {statement}", values).fetchall())  # type: ignore[call-overload]  # from constants
            for name, statement in statements.items()
        }
