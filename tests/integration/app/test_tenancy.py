"""Suspending and purging tenants, in the tables and from the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from jobbridge import Celery, current_tenant, job, tenant_context
from jobbridge.cli.root import run
from jobbridge.core.keys import SYSTEM_TENANT, TenantId
from jobbridge.core.status import JobStatus
from jobbridge.errors import TenantRequired, UnsupportedOption
from jobbridge.recording import JobRecorder
from jobbridge.settings import load_settings
from jobbridge.store.counts.counts import CountStore
from jobbridge.store.database import Database
from jobbridge.store.jobs.queries import JobStore
from jobbridge.store.schema.conventions import TENANT_TABLES
from jobbridge.store.tenants.tenants import TenantStore
from tests.job_events import FIRST, EventsOf, new_key

ACME, OTHER = TenantId("acme"), TenantId("other")


def work() -> None:
    pass


def handle(ctx: Any, data: Any) -> None:
    pass


class Books:
    def __init__(self, url: str) -> None:
        self.database = Database(url)
        self.recorder = JobRecorder(self.database)
        self.tenants = TenantStore(self.database)
        self.jobs = JobStore(self.database)

    def status(self, job: EventsOf) -> JobStatus | None:
        row = self.jobs.get(job.key)
        return row and row.status


@pytest.fixture
def books(database_url: str) -> Iterator[Books]:
    books = Books(database_url)
    yield books
    books.database.close()


@pytest.fixture
def app(database_url: str) -> Iterator[Celery]:
    app = Celery("tenancy", settings=load_settings({"DATABASE_URL": database_url}))
    yield app
    app.close()


# -- suspension


def test_a_job_of_a_suspended_tenant_is_skipped_and_others_run(books: Books) -> None:
    theirs, ours = EventsOf(new_key(ACME)), EventsOf(new_key(OTHER))
    books.tenants.suspend(ACME, reason="did not pay", suspended_by="ada")
    for each in (theirs, ours):
        books.recorder.record(each.submitted())

    refused, started = books.recorder.record(theirs.started()), books.recorder.record(ours.started())

    assert (refused.applied, refused.status) == (False, JobStatus.SKIPPED)
    assert started.applied
    row = books.jobs.get(theirs.key)
    assert row is not None
    assert (row.attempt, row.error) == (0, "The tenant is suspended: did not pay")
    assert books.jobs.details(theirs.key) == []


def test_a_job_that_nobody_recorded_is_skipped_too(books: Books) -> None:
    job = EventsOf(new_key(ACME))
    books.tenants.suspend(ACME)

    books.recorder.record(job.started())

    assert books.status(job) is JobStatus.SKIPPED


def test_a_job_that_comes_back_from_a_dead_worker_is_skipped_and_its_step_closed(books: Books) -> None:
    job = EventsOf(new_key(ACME))
    books.recorder.record(job.submitted())
    books.recorder.record(job.started())
    books.tenants.suspend(ACME)

    books.recorder.record(job.started(redelivered=True))

    assert books.status(job) is JobStatus.SKIPPED
    assert [step.status for step in books.jobs.details(job.key)] == [JobStatus.FAILED]


def test_what_runs_already_goes_on_to_its_end(books: Books) -> None:
    job = EventsOf(new_key(ACME))
    books.recorder.record(job.submitted())
    books.recorder.record(job.started())
    books.tenants.suspend(ACME)

    assert books.recorder.record(job.completed()).applied


def test_a_message_that_may_not_start_anyway_skips_nothing(books: Books) -> None:
    job = EventsOf(new_key(ACME))
    books.recorder.record(job.submitted())
    books.recorder.record(job.started())
    books.tenants.suspend(ACME)

    refused = books.recorder.record(job.started(UUID(int=99)))

    assert not refused.applied
    assert books.status(job) is JobStatus.PROCESSING


def test_after_resume_its_jobs_start(books: Books) -> None:
    job = EventsOf(new_key(ACME))
    assert books.tenants.suspend(ACME)
    assert not books.tenants.suspend(ACME, reason="twice")
    assert books.tenants.resume(ACME)
    assert not books.tenants.resume(ACME)

    books.recorder.record(job.submitted())
    assert books.recorder.record(job.started()).applied


def test_if_it_cannot_be_looked_up_the_job_runs(books: Books, database_url: str) -> None:
    job = EventsOf(new_key(ACME))
    books.tenants.suspend(ACME)
    books.recorder.record(job.submitted())
    with psycopg.connect(database_url) as connection:
        connection.execute("ALTER TABLE job_suspensions RENAME TO elsewhere")

    assert books.recorder.record(job.started()).applied


def test_the_system_cannot_be_suspended_nor_purged(books: Books, app: Celery, database_url: str) -> None:
    for act in (books.tenants.suspend, books.tenants.delete_rows, app.purge_tenant):
        with pytest.raises(UnsupportedOption, match="is the system's"):
            act(SYSTEM_TENANT)
    with psycopg.connect(database_url) as connection, pytest.raises(psycopg.errors.CheckViolation):
        connection.execute("INSERT INTO job_suspensions (tenant) VALUES (%s)", [SYSTEM_TENANT])


# -- purging


def test_a_purge_ends_and_deletes_everything_of_one_tenant_only(
    books: Books, app: Celery, database_url: str
) -> None:
    app.task(name="tenancy.work")(work)
    for tenant in (ACME, OTHER):
        for n in range(5):
            app.tasks["tenancy.work"].apply_async(tenant=tenant, singleton_key=f"key {n}")
        running = EventsOf(new_key(tenant))
        books.recorder.record(running.submitted())
        books.recorder.record(running.started())
        app.schedules.create("tenancy.work", "24 hours", tenant=tenant)
    CountStore(app.database).fold()
    kept = _counts(database_url, OTHER)

    purged = app.purge_tenant(ACME, by="ada")

    assert (purged.schedules, purged.cancelled) == (1, 6)
    assert (purged.deleted["jobs"], purged.deleted["job_singletons"]) == (6, 5)
    assert {table: count for table, count in _counts(database_url, ACME).items() if count} == {
        "job_suspensions": 1
    }
    assert _counts(database_url, OTHER) == kept
    with psycopg.connect(database_url) as connection:
        left = connection.execute("SELECT count(*) FROM jobbridge_broker.messages").fetchone()
    assert left == (5,), "the other tenant's messages"


def test_rows_are_deleted_in_small_bites(books: Books) -> None:
    for _ in range(7):
        books.recorder.record(EventsOf(new_key(ACME)).submitted())

    assert books.tenants.delete_rows(ACME, batch=3)["jobs"] == 7


def test_a_message_that_comes_back_after_a_purge_does_not_run(books: Books, app: Celery) -> None:
    job = EventsOf(new_key(ACME))
    app.purge_tenant(ACME)

    assert not books.recorder.record(job.started(FIRST, redelivered=True)).applied


# -- whose work it is


def test_what_is_sent_belongs_to_the_current_tenant(app: Celery) -> None:
    task = app.task(name="tenancy.work")(work)

    assert current_tenant() is None
    with tenant_context("acme"):
        assert current_tenant() == "acme"
        mine = task.delay()
        named = task.apply_async(tenant="other")
    nobodys = task.delay()

    tenants = [app.jobs.find(UUID(result.id)) for result in (mine, named, nobodys)]
    assert [row and row.tenant for row in tenants] == ["acme", "other", SYSTEM_TENANT]


def test_a_job_is_found_though_another_tenant_has_one_of_its_id(app: Celery) -> None:
    app.task(name="work", shared=False)(work)
    ours = app.tasks["work"].apply_async(tenant=ACME).job.key
    copy = """
        INSERT INTO jobs (tenant, job_id, task_id, type, status, runner_type, created_at)
        SELECT 'other', job_id, task_id, type, status, runner_type, now() + interval '1 day' FROM jobs"""
    with app.database.connection() as connection:
        connection.execute(copy)

    assert app.cancel_job(ours.job_id, ACME)

    with app.database.connection() as connection:
        rows = dict(connection.execute("SELECT tenant, status FROM jobs").fetchall())
    assert rows == {ACME: "cancelled", OTHER: "queued"}


def test_a_handler_that_needs_a_tenant_is_refused_without_one(app: Celery) -> None:
    name = f"needs-tenant-{uuid4().hex}"
    job(name, tenant_required=True)(handle)
    app.finalize()
    task = app.tasks[name]

    for options in ({}, {"tenant": SYSTEM_TENANT}):
        with pytest.raises(TenantRequired):
            task.apply_async([{}], **options)
    with tenant_context("acme"):
        result = task.delay({})

    row = app.jobs.find(UUID(result.id))
    assert row is not None
    assert row.tenant == "acme"


# -- the command


def test_tenants_are_listed_suspended_resumed_and_purged(
    books: Books, database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    books.recorder.record(EventsOf(new_key(ACME)).submitted())

    def answer(*arguments: str) -> Any:
        assert run(["tenants", *arguments, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    assert answer("suspend", "acme", "--reason", "late", "--by", "ada")["changed"] is True
    assert answer("suspend", "acme")["changed"] is False
    [acme] = answer("list", "--suspended")
    assert (acme["tenant"], acme["reason"], acme["suspended_by"]) == ("acme", "late", "ada")
    assert answer("resume", "acme")["changed"] is True
    assert answer("list", "--suspended") == []
    assert [tenant["tenant"] for tenant in answer("list")] == ["acme"]
    assert answer("purge", "acme", "--yes")["deleted"]["jobs"] == 1
    assert run(["tenants", "suspend", SYSTEM_TENANT]) == 5
    assert run(["tenants", "list"]) == 0
    assert "purged" in capsys.readouterr().out


def _counts(url: str, tenant: str) -> dict[str, int]:
    with psycopg.connect(url) as connection:
        return {
            table: connection.execute(
                f"SELECT count(*) FROM {table} WHERE tenant = %s",  # type: ignore[arg-type]  # a constant
                [tenant],
            ).fetchall()[0][0]
            for table in TENANT_TABLES
        }
