"""Where the tables are in partitions, hot statements look into that of their job, and into no other."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import sql

from jobbridge.core.events import Completed, Progressed, Started
from jobbridge.core.keys import SYSTEM_TENANT, Engine, JobKey
from jobbridge.store.jobs import batches, queries, steps
from jobbridge.store.jobs.statements import statement_of
from jobbridge.store.partitions.layout import name_of
from jobbridge.store.partitions.spans import Width, start_of, time_ordered_id
from jobbridge.store.schema.partition import partition

NOW = datetime.now(UTC)
JOBS = 3_000
_FILL = """
WITH made AS (
    INSERT INTO jobs (tenant, job_id, task_id, type, status, runner_type, queue, delivery, created_at)
    SELECT %(tenant)s, job_id, job_id, 'type', 'processing', 'celery', 'q', job_id, %(at)s
    FROM unnest(%(ids)s::uuid[]) AS job_id
    RETURNING tenant, job_id
)
INSERT INTO job_details (tenant, job_id, step_name, status) SELECT tenant, job_id, 'attempt', 'processing' FROM made
"""


def _id(at: datetime) -> UUID:
    return time_ordered_id(int(at.timestamp() * 1000), uuid4().int & (1 << 80) - 1)


@pytest.fixture
def filled(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    partition(database_url, "month", since=timedelta(days=200))
    with psycopg.connect(database_url, autocommit=True) as connection:
        for days in range(0, 200, 30):
            at = NOW - timedelta(days=days)
            ids = [_id(at) for _ in range(JOBS)] + [uuid4()]
            connection.execute(_FILL, {"tenant": SYSTEM_TENANT, "ids": ids, "at": at})
        connection.execute("ANALYZE jobs, job_details")
        yield connection


@pytest.fixture
def some(filled: psycopg.Connection[Any]) -> list[Started]:
    name = sql.Identifier(f"jobs_{name_of(start_of(Width.MONTH, NOW))}")
    rows = filled.execute(sql.SQL("SELECT job_id FROM {} LIMIT 8").format(name)).fetchall()
    return [
        Started(
            key=JobKey(tenant=SYSTEM_TENANT, job_id=job_id),
            task_id=str(job_id),
            type="type",
            engine=Engine.CELERY,
            delivery=job_id,
            queue="q",
            worker="w",
            worker_number=1,
        )
        for (job_id,) in rows
    ]


def _read(node: dict[str, Any]) -> Iterator[str]:
    """Name the partitions that were read, and not only planned for."""
    table = node.get("Relation Name", "")
    if node["Actual Loops"] and "Scan" in node["Node Type"] and table.startswith(("jobs_", "job_details_")):
        yield table
    for child in node.get("Plans", []):
        yield from _read(child)


@pytest.mark.parametrize("plan", ["force_generic_plan", "force_custom_plan"])
@pytest.mark.parametrize(
    "name", ["start", "progress", "complete", "start many", "complete many", "fail many", "find", "step"]
)
def test_a_hot_statement_reads_one_partition(
    filled: psycopg.Connection[Any], some: list[Started], name: str, plan: str
) -> None:
    completed = [Completed(key=each.key, attempt=0) for each in some]
    ends = batches.params_of_ends([batches.Ended.of(each) for each in completed])
    job = {"tenant": SYSTEM_TENANT, "job_id": some[0].key.job_id}
    step = {"detail_id": uuid4(), "status": "completed", "result": None, "error": None}
    statement, params = {
        "start": statement_of(some[0]),
        "progress": statement_of(Progressed(key=some[0].key, attempt=0, progress=1.0, message="")),
        "complete": statement_of(completed[0]),
        "start many": (batches.START_MANY, batches.params_of_starts(some)),
        "complete many": (batches.COMPLETE_MANY, ends),
        "fail many": (batches.FAIL_MANY, ends),
        "find": (queries.FIND, job),
        "step": (steps.END, job | step),
    }[name]
    settings = batches.SETTINGS if name.endswith("many") else {}

    with filled.transaction(force_rollback=True):
        for setting, value in {**settings, "plan_cache_mode": plan}.items():
            filled.execute("SELECT set_config(%s, %s, true)", [setting, value])
        text = batches.for_tenants_of(statement, "text")
        [(told,)] = filled.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {text}".encode(), params).fetchall()

    now = name_of(start_of(Width.MONTH, NOW))
    read = set(_read(told[0]["Plan"]))
    assert read <= {f"jobs_{now}", f"job_details_{now}"}, json.dumps(told, indent=1)
    assert read or name == "step"
