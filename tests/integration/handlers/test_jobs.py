"""The jobs as jobs: real workers of both engines, a real mail server."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from jobbridge import Celery
from jobbridge.bootstrap import make_app
from jobbridge.core.keys import Engine, TenantId
from jobbridge.core.status import JobStatus
from jobbridge.dev.calendars import calendar_services
from jobbridge.dev.process import ManagedProcess
from jobbridge.errors import InvalidJobData, TenantRequired
from jobbridge.handlers.dataset import CLIENT_WITHOUT_ADDRESS, MONTH
from jobbridge.handlers.demo import run_scenario
from jobbridge.handlers.invoicing.models import InvoiceHead
from jobbridge.settings import load_settings
from jobbridge.store.jobs.queries import JobFilter
from jobbridge.store.jobs.rows import JobRow
from tests.books import Books
from tests.conftest import StartWorker
from tests.mail_server import HANG_UP, MailServer, run_mail_server
from tests.support import wait_until

#: Whose books there are: see conftest.py.
TENANTS = ("t1",)

WINDOW = {"periodStart": str(MONTH.start), "periodEnd": str(MONTH.end)}
BOTH = pytest.mark.parametrize("engine", [Engine.CELERY, Engine.TEMPORAL], ids=str)


class Office:
    """Books, a mail server, an app, and workers."""

    def __init__(
        self, app: Celery, books: Books, mail: MailServer, start: Callable[[Engine], ManagedProcess]
    ) -> None:
        self.app, self.books, self.mail, self.start = app, books, mail, start

    def send(self, name: str, engine: Engine, **data: Any) -> UUID:
        return self.app.enqueue(name, {"tenantId": "t1", **data}, engine=engine).job_id

    def send_mails(self, engine: Engine, invoices: Sequence[InvoiceHead]) -> UUID:
        return self.send(
            "invoice_email", engine, invoiceIds=[str(invoice.invoice_id) for invoice in invoices]
        )

    def row(self, job_id: UUID) -> JobRow:
        row = self.app.jobs.find(job_id)
        assert row is not None
        return row

    def end_of(self, job_id: UUID) -> JobRow:
        wait_until(lambda: self.row(job_id).status.is_final, timeout=60, message=f"{job_id} has ended")
        return self.row(job_id)


@pytest.fixture
def office(
    books: Books,
    temporal_server: str,
    task_queue: str,
    celery_worker: StartWorker,
    temporal_worker: StartWorker,
) -> Iterator[Office]:
    with run_mail_server() as mail, calendar_services() as calendars:
        environment = {
            "DATABASE_URL": books.url,
            "EDITION": "enterprise",
            "JOB_RUNNER_TYPE": "celery",
            **calendars,
            "SMTP_URL": mail.url,
            "MAIL_FROM": "billing@harbour-it.example",
            "TEMPORAL_ADDRESS": temporal_server,
            "TEMPORAL_JOB_TASK_QUEUE": task_queue,
        }

        def start(engine: Engine) -> ManagedProcess:
            worker = celery_worker if engine is Engine.CELERY else temporal_worker
            return worker("jobbridge", "-P", "threads", "-c", "2", **environment)

        app = make_app(settings=load_settings(environment))
        yield Office(app, books, mail, start)
        app.close()
        app.database.close()


def test_both_engines_make_the_same_documents(office: Office, tmp_path: Path) -> None:
    documents: dict[Engine, dict[str, bytes]] = {}
    for engine in Engine:
        office.start(engine)
        seen: list[int] = []
        job_ids, paths = run_scenario(
            office.app,
            engine,
            f"tenant-{engine}",
            tmp_path / engine,
            lambda rows, seen=seen: seen.append(len(rows)),
        )

        rows = [office.row(job_id) for job_id in job_ids]
        assert {(row.runner_type, row.status, row.attempt) for row in rows} == {
            (engine, JobStatus.COMPLETED, 1)
        }, [row.error for row in rows]
        assert len({row.type for row in rows}) == 12
        assert seen == sorted(seen)
        assert seen[-1] == len(rows) == 17
        documents[engine] = {path.name: path.read_bytes() for path in paths}

    assert len(documents[Engine.CELERY]) == 8
    assert documents[Engine.CELERY] == documents[Engine.TEMPORAL]
    assert len(office.mail.mails) == 22


@pytest.mark.long
@BOTH
def test_workers_that_are_killed_at_random_leave_the_same_books_and_documents(
    office: Office, engine: Engine, tmp_path: Path
) -> None:
    """`KILLS=4 KILL_SEED=3 pytest -k killed_at_random` chooses; a job that loses five workers counts as poison."""
    chance = random.Random(int(os.environ.get("KILL_SEED", "0")) or None)
    worker = office.start(engine)
    _, expected = run_scenario(office.app, engine, "undisturbed", tmp_path / "expected", lambda rows: None)
    mails = len(office.mail.mails)

    with ThreadPoolExecutor(1) as aside:
        scenario = aside.submit(
            run_scenario, office.app, engine, "disturbed", tmp_path / "found", lambda rows: None
        )
        killed: set[str] = set()
        for _ in range(int(os.environ.get("KILLS", "3"))):
            running = wait_until(lambda: running_jobs(office) or scenario.done(), timeout=60)
            if running is True:
                break
            threading.Event().wait(chance.uniform(0, 0.05))
            worker.kill()
            killed |= running
            worker = office.start(engine)
        job_ids, found = scenario.result(timeout=200)

    assert killed
    rows = [office.row(job_id) for job_id in job_ids]
    # What was with the mail server when its sender died is in doubt for ever: said, and not sent a second time.
    in_doubt = {row.type for row in rows if row.status is JobStatus.FAILED and "doubt" in (row.error or "")}
    assert in_doubt <= {"invoice_email", "expiring-credits-notification"}
    assert {row.status for row in rows if row.type not in in_doubt} == {JobStatus.COMPLETED}, killed
    assert {path.name: path.read_bytes() for path in found} == {
        path.name: path.read_bytes() for path in expected
    }, killed
    sent = office.mail.mails[mails:]
    assert len({mail["Message-ID"] for mail in sent}) == len(sent)
    assert len(sent) == mails or in_doubt
    assert office.books.value(BALANCES, "disturbed") == office.books.value(BALANCES, "undisturbed"), killed


def running_jobs(office: Office) -> set[str]:
    """Name what the tenant's workers are at."""
    where = JobFilter(tenant=TenantId("disturbed"), statuses=[JobStatus.PROCESSING])
    return {row.type for row in office.app.jobs.page(where).jobs}


BALANCES = """
SELECT jsonb_build_object(
    'accounts', (SELECT jsonb_agg(balance ORDER BY client_id) FROM psa.credit_accounts WHERE tenant = asked),
    'ledger', (SELECT jsonb_agg(jsonb_build_array(client_id, kind, amount) ORDER BY client_id, kind, amount)
               FROM psa.credit_transactions WHERE tenant = asked),
    'assets', (SELECT jsonb_agg(name ORDER BY name) FROM psa.assets WHERE tenant = asked),
    'forms', (SELECT count(*) FROM psa.workflow_forms WHERE tenant = asked),
    'keys', (SELECT count(*) FROM psa.ai_session_keys WHERE tenant = asked AND is_active)
) FROM (SELECT %s) AS a (asked)
"""


@BOTH
def test_a_refusal_fails_the_job_at_its_first_attempt(office: Office, engine: Engine) -> None:
    office.start(engine)

    row = office.end_of(office.send("generate-invoice", engine, clientId=CLIENT_WITHOUT_ADDRESS, **WINDOW))

    assert (row.status, row.attempt) == (JobStatus.FAILED, 1)
    assert "has no billing address" in (row.error or "")
    assert "NoBillingAddress" in (row.traceback or "")


@BOTH
def test_one_deferred_mail_does_not_stop_the_others_and_is_tried_again_alone(
    office: Office, engine: Engine
) -> None:
    asked: list[str] = []

    def lakeside_later(recipient: str) -> str | None:
        asked.append(recipient)
        return "450 busy" if "lakeside" in recipient and asked.count(recipient) == 1 else None

    office.mail.at_rcpt = lakeside_later
    invoices = office.books.bill_all()
    office.start(engine)

    row = office.end_of(office.send_mails(engine, invoices))

    assert (row.status, row.attempt) == (JobStatus.COMPLETED, 2), row.error
    assert len(office.mail.mails) == len(invoices)
    assert len(asked) == len(invoices) + 1
    steps = [detail for detail in office.app.jobs.details(row.key) if detail.step_name == "email"]
    assert [step.status for step in steps].count(JobStatus.FAILED) == 1
    assert len(steps) == len(invoices) + 1


def test_a_job_with_a_mail_in_doubt_fails_and_names_it_and_sends_the_others(office: Office) -> None:
    office.mail.at_data = lambda recipient: HANG_UP if "lakeside" in recipient else None
    invoices = office.books.bill_all()
    office.start(Engine.CELERY)

    row = office.end_of(office.send_mails(Engine.CELERY, invoices))

    assert (row.status, row.attempt) == (JobStatus.FAILED, 1)
    assert "1 of 6 invoices were not mailed. INV-2026-00002: " in (row.error or "")
    assert sorted(office.mail.recipients) == sorted({*office.mail.recipients})
    assert len(office.mail.recipients) == len(invoices)


def test_a_cancelled_job_mails_no_further_invoice(office: Office) -> None:
    job_ids: list[UUID] = []

    def cancel_at_the_second(recipient: str) -> None:
        if len(office.mail.mails) == 1:
            office.app.cancel_job(job_ids[0], reason="enough")

    invoices = office.books.bill_all()
    office.mail.at_rcpt = cancel_at_the_second
    job_ids.append(office.send_mails(Engine.CELERY, invoices))
    office.start(Engine.CELERY)

    row = office.end_of(job_ids[0])

    assert (row.status, row.cancel_reason) == (JobStatus.CANCELLED, "enough")
    wait_until(lambda: len(office.mail.mails) == 2, message="the mail that was on its way has arrived")
    steps = [detail for detail in office.app.jobs.details(row.key) if detail.step_name == "email"]
    assert len(steps) <= 3


def test_a_killed_workers_mails_are_finished_by_another_and_none_is_sent_twice(office: Office) -> None:
    workers: list[ManagedProcess] = []

    def kill_at_the_third(recipient: str) -> None:
        if len(office.mail.mails) == 2 and len(workers) == 1:
            workers[0].kill()

    invoices = office.books.bill_all()
    office.mail.at_rcpt = kill_at_the_third
    workers.append(office.start(Engine.CELERY))
    job_id = office.send_mails(Engine.CELERY, invoices)
    wait_until(lambda: not workers[0].is_running, timeout=30, message="the worker is dead")

    workers.append(office.start(Engine.CELERY))
    row = office.end_of(job_id)

    assert (row.status, row.attempt) == (JobStatus.COMPLETED, 2), row.error
    assert len(office.mail.recipients) == len({*office.mail.recipients}) == len(invoices)


def test_data_that_does_not_fit_is_refused_before_it_is_sent(office: Office) -> None:
    with pytest.raises(InvalidJobData, match="periodEnd: Field required"):
        office.send("generate-invoice", Engine.CELERY, clientId="northwind", periodStart="2026-10-01")
    with pytest.raises(TenantRequired):
        office.app.enqueue("generate-invoice", {"clientId": "northwind", **WINDOW}, engine=Engine.CELERY)

    assert office.books.value("SELECT count(*) FROM jobs") == 0
