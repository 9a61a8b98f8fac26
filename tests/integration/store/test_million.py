"""With a million jobs and messages that wait, no hot statement reads a table as a whole."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from jobbridge.broker.consume import claiming, settling, sweeping
from jobbridge.broker.session import SETTINGS
from jobbridge.core.events import Completed, Started
from jobbridge.core.keys import SYSTEM_TENANT, Engine, JobKey
from jobbridge.postgres.presence import look_parameters
from jobbridge.store.jobs import batches, chords, transitions
from jobbridge.store.jobs.statements import statement_of

#: They share a database that takes a minute to fill.
pytestmark = [pytest.mark.long, pytest.mark.xdist_group("million"), pytest.mark.timeout(600)]

MILLION = 1_000_000
_FILL = (
    """
    INSERT INTO jobbridge_broker.messages (queue, priority, due_at, headers, properties, body, correlation_id)
    SELECT 'q' || n %% 3, n %% 10, CASE WHEN n %% 5 = 0 THEN now() + n * interval '1 second' END, '{}', '{}', '', n
    FROM generate_series(1, %s) AS n
    """,
    """
    INSERT INTO jobs (tenant, job_id, task_id, type, status, runner_type, queue, external_id, delivery, created_at)
    SELECT '00000000-0000-0000-0000-000000000000', gen_random_uuid(), n, 'type', 'queued', 'celery', 'q' || n %% 3, n,
        gen_random_uuid(), now() - n * interval '1 second'
    FROM generate_series(1, %s) AS n
    """,
    "ANALYZE jobbridge_broker.messages",
    "ANALYZE jobs",
)


@pytest.fixture(scope="module")
def filled(postgres: Any, migrated_template: str) -> Iterator[psycopg.Connection[Any]]:
    url = postgres.create_database(f"million_{uuid.uuid4().hex[:8]}", template=migrated_template)
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in _FILL:
            connection.execute(statement.encode(), [MILLION] if "%s" in statement else None)
        yield connection


@pytest.fixture(scope="module")
def some(filled: psycopg.Connection[Any]) -> list[tuple[uuid.UUID, uuid.UUID]]:
    return filled.execute("SELECT job_id, delivery FROM jobs LIMIT 20").fetchall()


def _plan(connection: psycopg.Connection[Any], statement: str, params: Any, settings: Any) -> str:
    with connection.transaction(force_rollback=True):
        for name, value in settings.items():
            connection.execute("SELECT set_config(%s, %s, true)", [name, value])
        rows = connection.execute(f"EXPLAIN {statement}".encode(), params).fetchall()
    return "\n".join(row[0] for row in rows)


def _plan_for_all(connection: psycopg.Connection[Any], statement: str, settings: Any) -> str:
    """Give the plan that is kept, whatever the parameters are."""
    names = list(dict.fromkeys(re.findall(r"%\((\w+)\)s", statement)))
    numbered = re.sub(r"%\((\w+)\)s", lambda found: f"${names.index(found[1]) + 1}", statement)
    return _plan(connection, f"(GENERIC_PLAN) {numbered}", None, settings)


_BROKER: dict[str, tuple[str, dict[str, Any]]] = {
    "claim": (claiming.CLAIM, {"queue": "q1", "limit": 8, "consumer": 1, "done": [1, 2], "suspect_from": 4}),
    "claim after": (
        claiming.CLAIM_AFTER,
        {"queue": "q1", "limit": 8, "consumer": 1, "done": [1, 2], "suspect_from": 4}
        | {"priorities": [2, 1, 0], "floors": [500, 0, 7]},
    ),
    "take": (claiming.TAKE, {"queue": "q1", "limit": 8}),
    "acknowledge": (settling.ACKNOWLEDGE, {"ids": [1, 2], "consumer": 1}),
    "give back": (settling.GIVE_BACK, {"ids": list(range(500)), "consumer": 1}),
    "promote": (claiming.PROMOTE_DUE, {"queues": ["q1", "q2"], "limit": 250}),
    "next due": (claiming.SECONDS_TO_NEXT_DUE, {"queues": ["q1", "q2"]}),
    "sweep": (sweeping.SWEEP, look_parameters(1, 3.0)),
    "free": (
        sweeping.FREE_LEASES,
        {"dead": [1], "deliveries_allowed": 5, "suspect_from": 4, "not_begun": [1]},
    ),
}


@pytest.mark.parametrize("name", _BROKER)
def test_no_hot_statement_of_the_broker_scans(filled: psycopg.Connection[Any], name: str) -> None:
    statement, params = _BROKER[name]

    plans = _plan(filled, statement, params, SETTINGS), _plan_for_all(filled, statement, SETTINGS)

    for plan in plans:
        assert "Seq Scan on messages" not in plan, plan
        assert "Hash Join" not in plan, plan
        assert "messages" in plan


def _started(job_id: uuid.UUID, delivery: uuid.UUID) -> Started:
    return Started(
        key=JobKey(tenant=SYSTEM_TENANT, job_id=job_id),
        task_id=str(job_id),
        type="type",
        engine=Engine.CELERY,
        delivery=delivery,
        queue="q1",
        worker="w",
        worker_number=1,
    )


_JOBS = (
    "start",
    "start many",
    "complete",
    "complete part",
    "complete many",
    "fail many",
    "chords",
)


@pytest.mark.parametrize("name", _JOBS)
def test_no_hot_statement_of_the_jobs_scans(
    filled: psycopg.Connection[Any], some: list[tuple[uuid.UUID, uuid.UUID]], name: str
) -> None:
    starts = [_started(*each) for each in some]
    completed = [Completed(key=each.key, attempt=1) for each in starts]
    ends = batches.params_of_ends([batches.Ended.of(each) for each in completed])
    statement, params = {
        "start": statement_of(starts[0]),
        "start many": (batches.START_MANY, batches.params_of_starts(starts)),
        "complete": statement_of(completed[0]),
        "complete part": (transitions.COMPLETE_PART, statement_of(completed[0])[1] | {"breaks": False}),
        "complete many": (batches.COMPLETE_MANY, ends),
        "fail many": (batches.FAIL_MANY, ends),
        "chords": (chords.PARTS, {"chord_id": "c"}),
    }[name]

    is_many = name.endswith("many")
    plan = _plan(
        filled, batches.for_tenants_of(statement, "text"), params, batches.SETTINGS if is_many else {}
    )

    assert "Seq Scan on jobs" not in plan, plan
    assert "Seq Scan on job_details" not in plan or not is_many, plan
    assert "jobs" in plan
