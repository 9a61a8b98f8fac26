"""A daily job whose workers are killed, at points that nobody chose."""

from __future__ import annotations

import random

from jobbridge.bootstrap import make_app
from jobbridge.core.keys import Engine
from jobbridge.core.status import JobStatus
from jobbridge.handlers.dataset import TODAY
from jobbridge.settings import load_settings
from tests.books import Books
from tests.conftest import StartWorker
from tests.support import wait_until

CREDITS = 300

ISSUE_MANY = """
WITH numbers AS (
    SELECT 'many-' || number AS credit_id
    FROM generate_series(1, %s) AS number
), issued AS (
    INSERT INTO psa.credit_tracking (tenant, credit_id, client_id, amount, remaining, issued_on, expires_on)
    SELECT 't1', credit_id, 'soehne', 10, 10, '2026-01-01', '2026-09-30'
    FROM numbers
), entered AS (
    INSERT INTO psa.credit_transactions (tenant, client_id, credit_id, kind, amount, occurred_on)
    SELECT 't1', 'soehne', credit_id, 'issued', 10, '2026-01-01'
    FROM numbers
)
UPDATE psa.credit_accounts
SET balance = balance + 10 * %s
WHERE tenant = 't1' AND client_id = 'soehne'
"""

EXPIRED = "SELECT count(*) FROM psa.credit_transactions WHERE tenant = 't1' AND kind = 'expired'"
LEFT = "SELECT count(*) FROM psa.credit_tracking WHERE tenant = 't1' AND credit_id LIKE 'many-%%' AND remaining > 0"
TWICE = "SELECT count(*) - count(DISTINCT credit_id) FROM psa.credit_transactions WHERE kind = 'expired'"
BALANCE = "SELECT balance FROM psa.credit_accounts WHERE tenant = 't1' AND client_id = 'soehne'"


def test_credits_expire_once_however_often_the_worker_is_killed(
    database_url: str, celery_worker: StartWorker
) -> None:
    books = Books(database_url, "t1")
    books.run(ISSUE_MANY, CREDITS, CREDITS)
    app = make_app(settings=load_settings({"DATABASE_URL": database_url}))
    job = app.enqueue("expired-credits", {"tenantId": "t1", "asOf": str(TODAY)}, engine=Engine.CELERY)

    for _ in range(2):
        worker = celery_worker("jobbridge", "-P", "threads", "-c", "1", DATABASE_URL=database_url)
        enough = books.value(EXPIRED) + random.randint(1, 60)
        wait_until(lambda enough=enough: books.value(EXPIRED) >= enough, message="it is in the middle")
        worker.kill()
        assert books.value(LEFT) > 0, "it was killed in the middle"
    celery_worker("jobbridge", "-P", "threads", "-c", "1", DATABASE_URL=database_url)

    def row_at_the_end() -> object:
        row = app.jobs.find(job.job_id)
        return row if row is not None and row.status.is_final else None

    row = wait_until(row_at_the_end, timeout=60)
    assert (row.status, row.attempt) == (JobStatus.COMPLETED, 3)  # type: ignore[attr-defined]
    assert row.result == {"as_of": "2026-10-31", "expired": CREDITS + 2, "amount": "3300.00"}  # type: ignore[attr-defined]
    assert (books.value(LEFT), books.value(TWICE), books.value(BALANCE)) == (0, 0, 90)
    app.close()
    app.database.close()
