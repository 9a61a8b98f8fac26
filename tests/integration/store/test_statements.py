"""Every statement fits the migrated schema, and the hot ones follow an index of a large table."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from psycopg import sql

from jobbridge.core.events import JobEvent
from jobbridge.core.status import JobStatus
from jobbridge.recording import JobRecorder
from jobbridge.store.access import idempotency, links
from jobbridge.store.access import tokens as access
from jobbridge.store.counts import counts as job_counts
from jobbridge.store.counts import flow, partial_counts, recount
from jobbridge.store.database import Database
from jobbridge.store.fanout import chain, children, parent
from jobbridge.store.jobs import batches, keys, open_jobs, singletons, steps, submit, transitions
from jobbridge.store.jobs import queries as jobs
from jobbridge.store.jobs.statements import statement_of
from jobbridge.store.monitor import change_log as live
from jobbridge.store.monitor import health, queue_history, sealed
from jobbridge.store.moves import jobs as moves
from jobbridge.store.moves import schedules as schedule_moves
from jobbridge.store.schedules import counts as schedule_counts
from jobbridge.store.schedules import fires
from jobbridge.store.schedules import mirrors as schedule_mirrors
from jobbridge.store.schedules import repository as schedules
from jobbridge.store.tenants import overview as tenant_list
from jobbridge.store.tenants import tenants
from jobbridge.store.waits import records, waits
from jobbridge.store.workers import clear_history, dead, queue_pauses, retention, services, workers
from tests.job_events import FIRST, EventsOf

MODULES = (
    access, clear_history, partial_counts, job_counts, parent, flow, health, jobs, keys, children, links, live,
    retention, queue_pauses, recount, chain, idempotency, schedule_counts,
    fires, schedule_mirrors, schedule_moves, schedules, services, singletons, steps, tenant_list, tenants, transitions,
    open_jobs, submit, workers, batches, moves, queue_history, sealed, dead, records, waits,
)  # fmt: skip
STATEMENTS = {
    f"{module.__name__}.{name}": statement
    for module in MODULES
    for name, statement in vars(module).items()
    if name.isupper() and isinstance(statement, str) and "public." in statement
    if statement.lstrip().startswith(("SELECT", "WITH", "INSERT", "UPDATE", "DELETE"))  # whole ones
}
JOB = EventsOf()


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


def test_every_statement_can_be_prepared(connection: psycopg.Connection[Any]) -> None:
    assert len(STATEMENTS) > 25
    for name, statement in STATEMENTS.items():
        try:
            connection.execute(
                sql.SQL("PREPARE statement AS ")
                + sql.SQL(_numbered(batches.for_tenants_of(statement, "text")))
            )
        except psycopg.Error as error:
            raise AssertionError(f"{name}: {error}") from error
        connection.execute("DEALLOCATE statement")


def test_no_event_reads_a_table_as_a_whole(large: psycopg.Connection[Any]) -> None:
    events: list[JobEvent] = [
        JOB.submitted(),
        JOB.accepted(),
        JOB.fell_back(),
        JOB.started(),
        JOB.started(goes_back=True),
        JOB.progressed(),
        JOB.attempt_failed(),
        JOB.completed(),
        JOB.failed(),
        JOB.requeued(),
        JOB.cancelled(),
        JOB.expired(),
    ]
    for event in events:
        assert "Seq Scan" not in _plan(large, *statement_of(event)), event


def test_no_batch_of_events_reads_a_table_as_a_whole(large: psycopg.Connection[Any]) -> None:
    ends = [batches.Ended.of(event) for event in (JOB.completed(), JOB.failed(1))]
    asked = [
        (batches.START_MANY, batches.params_of_starts([JOB.started()])),
        (batches.COMPLETE_MANY, batches.params_of_ends(ends[:1])),
        (batches.FAIL_MANY, batches.params_of_ends(ends[1:])),
    ]
    for statement, params in asked:
        with large.transaction(force_rollback=True):
            for name, value in batches.SETTINGS.items():
                large.execute("SELECT set_config(%s, %s, true)", [name, value])
            plan = _plan(large, batches.for_tenants_of(statement, "text"), params)
        assert "jobs_pkey" in plan
        assert "Seq Scan" not in plan, plan


def test_questions_follow_an_index(large: psycopg.Connection[Any]) -> None:
    undelivered = {"older_than": "2s", "again_after": "30s", "limit": 100}
    of_chain = {
        "tenant": "t1", "job_id": FIRST, "root_id": FIRST, "group_id": "g", "read": 500, "limit": 50,
    }  # fmt: skip
    questions: list[tuple[str, dict[str, Any], str]] = [
        (jobs.FIND, {"job_id": FIRST}, "jobs_pkey"),
        (jobs.GET, {"tenant": "t1", "job_id": FIRST}, "jobs_pkey"),
        (jobs.FIND_EXTERNAL, {"external_id": "x", "job_id": FIRST}, "jobs_engines_id_idx"),
        (jobs.FIND_EXTERNAL, {"external_id": "x", "job_id": FIRST}, "jobs_pkey"),
        (jobs.RESULT, {"job_id": FIRST}, "jobs_pkey"),
        (jobs.RESULTS, {"job_ids": [FIRST]}, "jobs_pkey"),
        (jobs.DETAILS, {"tenant": "t1", "job_id": FIRST}, "job_details_job_idx"),
        (jobs.TAKE_UNDELIVERED, undelivered, "jobs_undelivered_idx"),
        (open_jobs.HAS_UNDELIVERED, {"older_than": "5s"}, "jobs_undelivered_idx"),
        (open_jobs.NOT_BEGUN, {"job_ids": [FIRST], "numbers": [1]}, "jobs_pkey"),
        (jobs.FALLEN_BACK, {"within": "1 day", "limit": 100}, "job_details_fallback_idx"),
        (tenant_list.HAVE_SEVERAL, {}, "jobs_tenant_newest_idx"),
        (chain.CHAIN, of_chain, "jobs_root_idx"),
        (chain.CHAIN, of_chain, "jobs_group_idx"),
    ]
    for statement, params, index in questions:
        plan = _plan(large, statement, params)
        assert index in plan
        assert "Seq Scan" not in plan


def test_open_jobs_are_found_by_their_index(large: psycopg.Connection[Any]) -> None:
    portion = {"engines": ["celery"], "after_at": "-infinity", "after_id": FIRST, "limit": 1000}
    of_tenant = {"tenant": "t1", "after_at": "-infinity", "after_id": FIRST, "limit": 500}
    questions: list[tuple[str, dict[str, Any]]] = [
        (open_jobs.OF_WORKERS, portion | {"numbers": [1, 2]}),
        (open_jobs.OPEN, portion | {"older_than": "30s"}),
        (
            open_jobs.UNDER_WAY,
            {"engines": ["celery"], "statuses": ["processing"], "most": 1000, "limit": 10},
        ),
        (open_jobs.RUNNING, {"numbers": [1, 2], "most": 1000, "limit": 10}),
        (health.WAITING, {"most": 1000}),
        (tenants.OPEN_JOBS, of_tenant),
    ]
    for statement, params in questions:
        plan = _plan(large, statement, params)
        assert "jobs_open_idx" in plan, statement
        assert "Seq Scan on jobs" not in plan, statement
    assert "jobs_unsuccessful_ended_idx" in _plan(large, health.UNKNOWN_TASKS, {"within": "1 day"})


def test_the_page_of_a_queue_follows_indexes(large: psycopg.Connection[Any]) -> None:
    large.execute(
        """
        INSERT INTO job_audit (actor, action, of_tenant, subject, outcome)
        SELECT 'ada', 'cancel', CASE WHEN n % 10 <> 0 THEN 't1' END, n::text, 'done' FROM generate_series(1, 20000) AS n
        """
    )
    large.execute("ANALYZE job_audit")
    ended = {"queue": "mail", "since": datetime.now(UTC), "most": 1000}
    actions = {"subject": "mail", "actions": ["pause queue"], "read": 1000, "before": 2**63 - 1, "limit": 50}

    for statement, params, index in (
        (queue_history.ENDED_BY_HOUR, ended, "jobs_newest_idx"),
        (access.ACTIONS_ON, actions, "job_audit_"),
    ):
        plan = _plan(large, statement, params)
        assert index in plan
        assert "Seq Scan" not in plan, plan


@pytest.mark.parametrize(
    ("statuses", "indexes"),
    [
        ([JobStatus.PROCESSING], ["jobs_open_idx"]),
        ([JobStatus.QUEUED, JobStatus.RETRYING], ["jobs_open_idx"]),
        ([JobStatus.EXPIRED], ["jobs_unsuccessful_idx"]),
        ([JobStatus.QUEUED, JobStatus.FAILED], ["jobs_open_idx", "jobs_unsuccessful_idx"]),
        ([JobStatus.QUEUED, JobStatus.COMPLETED], []),
    ],
    ids=str,
)
def test_a_page_of_rare_jobs_follows_their_index(
    large: psycopg.Connection[Any], statuses: list[JobStatus], indexes: list[str]
) -> None:
    for condition, index in zip(jobs.rare_ones(statuses), indexes, strict=True):
        # Fewer than there are: to sort them all would be as cheap as to find them in order.
        newest = f"SELECT * FROM public.jobs WHERE {condition} ORDER BY created_at DESC, job_id DESC LIMIT 10"
        plan = _plan(large, newest, {})
        assert index in plan
        assert "Sort" not in plan
        of_tenant = _plan(large, newest.replace("WHERE", "WHERE tenant = 't1' AND"), {})
        assert index.replace("jobs_unsuccessful", "jobs_tenant_unsuccessful") in of_tenant


def test_a_page_of_the_newest_jobs_sorts_nothing(large: psycopg.Connection[Any]) -> None:
    newest = f"SELECT {jobs.COLUMNS} FROM public.jobs {{}} ORDER BY created_at DESC, job_id DESC LIMIT 51"
    after = "(created_at, job_id) < (now() - interval '1 day', gen_random_uuid())"

    for where, index in [
        (f"WHERE {after}", "jobs_newest_idx"),
        (f"WHERE tenant = 't1' AND {after}", "jobs_tenant_newest_idx"),
    ]:
        plan = _plan(large, newest.format(where), {})
        assert index in plan
        assert "Sort" not in plan


def test_bookkeeping_touches_no_index_before_the_end(
    database_url: str, connection: psycopg.Connection[Any]
) -> None:
    """The row of a CE job is written in place (HOT) from its submission on; its end is one write, by indexes."""
    database = Database(database_url)
    recorder = JobRecorder(database)
    for number in range(50):
        job = EventsOf()
        external_id = str(job.key.job_id)
        recorder.record(job.submitted(external_id=external_id))
        recorder.record(job.started(external_id=external_id))
        recorder.record(job.progressed())
        recorder.record(job.progressed(progress=60))
        recorder.record(job.completed(result={"x": 1}) if number % 2 else job.failed())
    with database.connection() as own:
        own.execute("SELECT pg_stat_force_next_flush()")
    database.close()

    counts = "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = %s"
    for table, updates, before_the_end in [("jobs", 200, 150), ("job_details", 50, 50)]:
        updated, in_place = connection.execute(counts, [table]).fetchall()[0]
        assert updated == updates, "no trigger has to set anything right"
        assert in_place >= 0.9 * before_the_end, "but for the few that begin a new page"


@pytest.fixture
def large(connection: psycopg.Connection[Any]) -> psycopg.Connection[Any]:
    connection.execute(
        """
        INSERT INTO jobs (tenant, job_id, task_id, type, status, unsuccessful, runner_type, external_id, created_at,
            completed_at)
        SELECT 't' || n % 100, gen_random_uuid(), 'x', 'invoice.send', status, unsuccessful, 'celery', n::text,
            now() - n * interval '1 minute',
            CASE WHEN status NOT IN ('processing', 'queued') THEN now() - n * interval '1 minute' END
        FROM generate_series(1, 20000) AS n,
        LATERAL (
            SELECT CASE WHEN n % 100 = 0 THEN 'failed' WHEN n % 700 = 1 THEN 'expired' END AS unsuccessful
        ) AS ended,
        LATERAL (SELECT CASE WHEN n % 400 = 2 THEN 'processing' WHEN n % 400 = 3 THEN 'queued'
            ELSE coalesce(unsuccessful, 'completed') END AS status) AS known
        """
    )
    connection.execute(
        """
        INSERT INTO job_details (tenant, job_id, step_name, status, retry_count)
        SELECT tenant, job_id, 'attempt', 'completed', 1 FROM jobs
        """
    )
    connection.execute("ANALYZE jobs")
    connection.execute("ANALYZE job_details")
    return connection


def _plan(connection: psycopg.Connection[Any], statement: str, params: dict[str, Any]) -> str:
    rows = connection.execute(sql.SQL("EXPLAIN ") + sql.SQL(statement), params).fetchall()
    return "\n".join(row for (row,) in rows)


def _numbered(statement: str) -> str:
    names = list(dict.fromkeys(re.findall(r"%\((\w+)\)s", statement)))
    return re.sub(r"%\((\w+)\)s", lambda found: f"${names.index(found[1]) + 1}", statement).replace("%%", "%")
