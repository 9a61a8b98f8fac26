"""The doctor tells of partitions that are missing, and of a default one that is missing or has too much."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from jobbridge import Celery
from jobbridge.diagnosis.partitions import check_partitions
from jobbridge.settings import load_settings
from jobbridge.store.schema.partition import partition
from tests.parity.tasks import make_app


@pytest.fixture
def app(database_url: str) -> Iterator[Celery]:
    app = make_app(settings=load_settings({"DATABASE_URL": database_url}))
    yield app
    app.close()


@pytest.fixture
def divided(app: Celery, database_url: str) -> Iterator[psycopg.Connection[Any]]:
    partition(database_url, "week")
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


def _found(app: Celery, **told: Any) -> tuple[bool, str]:
    [check] = check_partitions(app, **told)
    return check.is_good, check.found


def test_of_whole_tables_nothing_is_said(app: Celery) -> None:
    assert check_partitions(app) == []


def test_partitions_that_are_ahead_are_good(app: Celery, divided: psycopg.Connection[Any]) -> None:
    is_good, found = _found(app)

    assert is_good
    assert "by week, up to" in found


def test_a_next_one_that_is_missing_is_told(app: Celery, divided: psycopg.Connection[Any]) -> None:
    is_good, found = _found(app, now=datetime.now(UTC) + timedelta(weeks=6))

    assert not is_good
    assert "the next ones are missing (they end at 20" in found


def test_a_full_default_partition_is_told(app: Celery, divided: psycopg.Connection[Any]) -> None:
    divided.execute(
        "INSERT INTO jobs (tenant, job_id, task_id, type, status, runner_type)"
        " SELECT 't', gen_random_uuid(), n, 'type', 'queued', 'celery' FROM generate_series(1, 50) AS n"
    )
    divided.execute("ANALYZE jobs_default")

    is_good, found = _found(app, many=10)

    assert not is_good
    assert "jobs_default has about 50 jobs" in found


def test_a_missing_default_partition_is_told(app: Celery, divided: psycopg.Connection[Any]) -> None:
    divided.execute("DROP TABLE jobs_default")

    is_good, found = _found(app)

    assert not is_good
    assert "there is no default partition" in found
