"""`credit-reconciliation`: compare balances and tracked credits with the ledger, and report what differs.

Nothing is corrected: somebody has to find out which side is wrong. A report stays open as long as the discrepancy is
there; when it is gone, the next run resolves the report. The books of a client are read in one statement, so in one
snapshot: what is being booked meanwhile is seen wholly or not at all, and nobody waits for a lock.

Step by step, what if the process dies in between, or the job comes twice?

- A client's reports are one transaction. Dies before its commit: the next attempt compares that client again.
- Dies after the commit, before the step is recorded: the next attempt finds the reports open, and leaves them. The
  summary is read back from the reports (each names the job that opened or resolved it), so it is complete.
- The same job, or two, run at once: there is one open report per discrepancy (unique index), the second insert gives
  way.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from itertools import groupby
from typing import Any

from jobbridge import FanOut, JobContext, job
from jobbridge.handlers.batches import RETRY, Context, for_each
from jobbridge.handlers.credits.ledger import Account, Credit, Discrepancy, discrepancies_of
from jobbridge.handlers.job_data import DailyJob
from jobbridge.handlers.providers import day_of
from jobbridge.handlers.sql import Connection, rows, run
from jobbridge.handlers.tenants import over_tenants

#: Daily, for each tenant.
SCHEDULE = "0 2 * * *"

TENANTS = """
SELECT tenant FROM psa.credit_accounts
UNION
SELECT tenant FROM psa.credit_transactions
UNION
SELECT tenant FROM psa.credit_tracking
ORDER BY tenant
"""

# Both sides of every credit, and each client's balance, in one snapshot; of one client if one is named.
BOOKS = """
WITH ledger AS (
    SELECT client_id, credit_id, sum(amount) FILTER (WHERE kind = 'issued') AS issued, sum(amount) AS left
    FROM psa.credit_transactions
    WHERE tenant = %(tenant)s AND (%(client_id)s::text IS NULL OR client_id = %(client_id)s)
    GROUP BY client_id, credit_id
), tracked AS (
    SELECT client_id, credit_id, amount, remaining
    FROM psa.credit_tracking
    WHERE tenant = %(tenant)s AND (%(client_id)s::text IS NULL OR client_id = %(client_id)s)
), account AS (
    SELECT client_id, balance
    FROM psa.credit_accounts
    WHERE tenant = %(tenant)s AND (%(client_id)s::text IS NULL OR client_id = %(client_id)s)
)
SELECT client_id, account.balance, credit_id, ledger.issued, ledger.left, tracked.amount, tracked.remaining
FROM ledger
FULL JOIN tracked USING (client_id, credit_id)
FULL JOIN account USING (client_id)
ORDER BY client_id, credit_id
"""

CLIENTS_WITH_OPEN_REPORTS = """
SELECT DISTINCT client_id
FROM psa.credit_reconciliation_reports
WHERE tenant = %(tenant)s AND status = 'open'
"""

# Open already: only the figures follow.
REPORT = """
INSERT INTO psa.credit_reconciliation_reports AS report (tenant, client_id, kind, subject_id, expected, actual,
    difference, opened_on, opened_by)
VALUES (%(tenant)s, %(client_id)s, %(kind)s, %(subject_id)s, %(expected)s, %(actual)s,
    %(difference)s, %(as_of)s, %(job_id)s)
ON CONFLICT (tenant, kind, subject_id) WHERE status = 'open' DO UPDATE
SET expected = EXCLUDED.expected, actual = EXCLUDED.actual, difference = EXCLUDED.difference
WHERE (report.expected, report.actual) IS DISTINCT FROM (EXCLUDED.expected, EXCLUDED.actual)
"""

RESOLVE = """
UPDATE psa.credit_reconciliation_reports
SET status = 'resolved', resolved_on = %(as_of)s, resolved_by = %(job_id)s
WHERE tenant = %(tenant)s
  AND client_id = %(client_id)s
  AND status = 'open'
  AND (kind, subject_id) NOT IN (SELECT * FROM unnest(%(kinds)s::text[], %(subject_ids)s::text[]))
"""

SUMMARY = """
SELECT kind, count(*) FILTER (WHERE status = 'open'), count(*) FILTER (WHERE opened_by = %(job_id)s),
    count(*) FILTER (WHERE resolved_by = %(job_id)s)
FROM psa.credit_reconciliation_reports
WHERE tenant = %(tenant)s AND (status = 'open' OR opened_by = %(job_id)s OR resolved_by = %(job_id)s)
GROUP BY kind
ORDER BY kind
"""


@job("credit-reconciliation", retry=RETRY, schedule=SCHEDULE)
def credit_reconciliation(ctx: JobContext, data: DailyJob) -> dict[str, Any] | FanOut:
    """Compare a tenant's credit balances and tracked credits with the ledger."""
    return over_tenants(ctx, data, tenants_with_credits) or reconcile_credits(ctx, data.as_of)


def tenants_with_credits(connection: Connection) -> list[str]:
    """Give the tenants that have anything to compare."""
    return [tenant for (tenant,) in rows(connection, TENANTS, {})]


def reconcile_credits(ctx: Context, as_of: date | None) -> dict[str, Any]:
    """Open a report for each discrepancy, resolve those that are gone, give the summary.

    Raises:
        PartlyFailed: Some clients' reports could not be written; the others are.
    """
    day = day_of(ctx.transaction, ctx.tenant_id, as_of)
    ctx.progress(0, 1, "comparing")
    with ctx.transaction() as connection:
        accounts = list(_accounts(connection, ctx.tenant_id))
        open_reports = rows(connection, CLIENTS_WITH_OPEN_REPORTS, {"tenant": ctx.tenant_id})
    differing = {account.client_id for account in accounts if discrepancies_of(account)}
    clients = sorted(differing | {client_id for (client_id,) in open_reports})

    def work(client_id: str) -> dict[str, Any]:
        with ctx.transaction() as connection:
            accounts = _accounts(connection, ctx.tenant_id, client_id)
            found = [each for account in accounts for each in discrepancies_of(account)]
            _report(connection, ctx, client_id, found, day)
        return {"discrepancies": len(found)}

    batch = for_each(ctx, "report", dict(zip(clients, clients, strict=True)), work)
    batch.raise_failures("clients' credits were not reconciled")
    summary = _summary(ctx)
    ctx.progress(1, 1, f"{summary['discrepancies']} discrepancies in {len(accounts)} accounts")
    return {"as_of": str(day), "clients": len(accounts), **summary}


def _accounts(connection: Connection, tenant: str, client_id: str | None = None) -> Iterator[Account]:
    found = rows(connection, BOOKS, {"tenant": tenant, "client_id": client_id})
    for owner, lines in groupby(found, key=lambda row: str(row[0])):
        known = list(lines)
        balance: Decimal | None = known[0][1]
        credits = [
            Credit(credit_id=credit_id, issued=issued, left=left, amount=amount, remaining=remaining)
            for _, _, credit_id, issued, left, amount, remaining in known
            if credit_id is not None  # an account without any credit
        ]
        yield Account(client_id=owner, balance=balance, credits=credits)


def _report(
    connection: Connection, ctx: Context, client_id: str, found: list[Discrepancy], day: date
) -> None:
    known: dict[str, object] = {
        "tenant": ctx.tenant_id, "job_id": ctx.job_id, "client_id": client_id, "as_of": day
    }  # fmt: skip
    for each in found:
        figures = {"expected": each.expected, "actual": each.actual, "difference": each.difference}
        run(connection, REPORT, known | figures | {"kind": each.kind, "subject_id": each.subject_id})
    still = {"kinds": [each.kind for each in found], "subject_ids": [each.subject_id for each in found]}
    run(connection, RESOLVE, known | still)


def _summary(ctx: Context) -> dict[str, Any]:
    with ctx.transaction() as connection:
        kinds = rows(connection, SUMMARY, {"tenant": ctx.tenant_id, "job_id": ctx.job_id})
    return {
        "discrepancies": sum(still_open for _, still_open, _, _ in kinds),
        "opened": sum(opened for _, _, opened, _ in kinds),
        "resolved": sum(resolved for _, _, _, resolved in kinds),
        "by_kind": {kind: still_open for kind, still_open, _, _ in kinds if still_open},
    }
