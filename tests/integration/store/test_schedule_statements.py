"""What each beat asks follows an index; that all statements fit is tested with the others."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import EntryPoint
from typing import Any

import psycopg
import pytest
from psycopg import sql

from jobbridge.app.schedules.beat import TableScheduler
from jobbridge.store.schedules import fires
from jobbridge.store.schedules import repository as schedules
from tests.support import REPOSITORY


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


def test_what_a_beat_asks_follows_an_index(connection: psycopg.Connection[Any]) -> None:
    connection.execute(
        """
        INSERT INTO job_schedules (
            tenant, schedule_id, name, task, kind, spec, overlap, catchup_seconds, engine, due_at
        )
        SELECT 't' || n % 100, gen_random_uuid(), n::text, 'x', 'cron', '* * * * *', 'allow', 60, 'celery',
            now() + n * interval '1 second'
        FROM generate_series(1, 20000) AS n
        """
    )
    connection.execute(
        """
        INSERT INTO job_schedule_fires (tenant, schedule_id, fire_at, trigger, outcome)
        SELECT tenant, schedule_id, due_at, 'schedule', 'enqueued' FROM job_schedules
        """
    )
    connection.execute("ANALYZE job_schedules, job_schedule_fires")
    now = datetime.now(UTC)
    one = {"tenant": "t1", "schedule_id": uuid.uuid4(), "limit": 10}

    for statement, params, index in [
        (fires.CLAIM, {"now": now, "limit": 50}, "job_schedules_due_idx"),
        (fires.NEXT_DUE, {}, "job_schedules_due_idx"),
        (schedules.HISTORY, one, "job_schedule_fires_pkey"),
    ]:
        rows = connection.execute(sql.SQL("EXPLAIN ") + sql.SQL(statement), params).fetchall()
        plan = "\n".join(row for (row,) in rows)
        assert index in plan
        assert "Seq Scan" not in plan


def test_the_short_name_of_the_scheduler_is_the_scheduler() -> None:
    """`celery beat -S jobbridge` finds it by an entry point, which only an installation registers."""
    line = next(
        line
        for line in (REPOSITORY / "pyproject.toml").read_text().splitlines()
        if line.startswith("jobbridge = ") and "beat" in line
    )
    value = line.partition("=")[2].strip().strip('"')

    assert EntryPoint("jobbridge", value, "celery.beat_schedulers").load() is TableScheduler
