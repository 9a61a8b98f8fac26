"""`expired-credits`: write off what is left of credits past their expiry.

Each credit is one transaction: the ledger's entry, nothing left, the account's balance and the audit row come
together, or not at all. So, step by step, what if the process dies in between, or the job comes twice?

- Dies before a credit's commit: nothing of it has happened; the next attempt, or the next day's job, does it.
- Dies after the commit, before the step is recorded: the next attempt finds nothing left of it, so it is not even
  a candidate. What the job reports is read back from the ledger (each entry names its job), so it is complete.
- The same job, or two days' jobs, run at once: the second waits for the lock on the client's account, and then finds
  nothing left. Whoever uses a credit takes the same lock, so it is either used or expired.
- What is given back to an expired credit (an invoice was voided) is left over again, and expires the next day.
- Locks are taken in the order account, credit, one client at a time, so jobs do not deadlock.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any

from jobbridge import FanOut, JobContext, job
from jobbridge.handlers.audit import write_entry
from jobbridge.handlers.batches import RETRY, Context, for_each
from jobbridge.handlers.credits.errors import BalanceBelowCredit, NoCreditAccount
from jobbridge.handlers.job_data import DailyJob
from jobbridge.handlers.providers import day_of
from jobbridge.handlers.sql import Connection, one, rows, rows_as, run
from jobbridge.handlers.tenants import over_tenants

#: Daily, for each tenant.
SCHEDULE = "0 1 * * *"

# A day more than UTC's: some zones are ahead of it. The job itself knows the tenant's day.
TENANTS = """
SELECT DISTINCT tenant
FROM psa.credit_tracking
WHERE remaining > 0 AND expires_on < (clock_timestamp() AT TIME ZONE 'UTC')::date + 1
ORDER BY tenant
"""

EXPIRED = """
SELECT credit_id, client_id, expires_on
FROM psa.credit_tracking
WHERE tenant = %(tenant)s AND remaining > 0 AND expires_on < %(as_of)s
ORDER BY expires_on, credit_id
"""

LOCK_ACCOUNT = """
SELECT balance
FROM psa.credit_accounts
WHERE tenant = %(tenant)s AND client_id = %(client_id)s
FOR UPDATE
"""

# Read again under the lock: it may have been used, or prolonged, since it was found.
LOCK_CREDIT = """
SELECT remaining
FROM psa.credit_tracking
WHERE tenant = %(tenant)s AND credit_id = %(credit_id)s AND remaining > 0 AND expires_on < %(as_of)s
FOR UPDATE
"""

ENTER = """
INSERT INTO psa.credit_transactions (tenant, client_id, credit_id, kind, amount, occurred_on, note, job_id)
VALUES (%(tenant)s, %(client_id)s, %(credit_id)s, 'expired', - %(remaining)s::numeric, %(as_of)s, %(note)s, %(job_id)s)
"""

CLEAR_CREDIT = """
UPDATE psa.credit_tracking
SET remaining = 0
WHERE tenant = %(tenant)s AND credit_id = %(credit_id)s
"""

LOWER_BALANCE = """
UPDATE psa.credit_accounts
SET balance = balance - %(remaining)s
WHERE tenant = %(tenant)s AND client_id = %(client_id)s
"""

DONE_BY_JOB = """
SELECT count(*), COALESCE(- sum(amount), 0.00)
FROM psa.credit_transactions
WHERE tenant = %(tenant)s AND job_id = %(job_id)s AND kind = 'expired'
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExpiredCredit:
    credit_id: str
    client_id: str
    expires_on: date


@job("expired-credits", retry=RETRY, schedule=SCHEDULE)
def expired_credits(ctx: JobContext, data: DailyJob) -> dict[str, Any] | FanOut:
    """Write off what is left of a tenant's credits past their expiry."""
    return over_tenants(ctx, data, tenants_with_credits_to_expire) or expire_credits(ctx, data.as_of)


def tenants_with_credits_to_expire(connection: Connection) -> list[str]:
    """Give the tenants for which the job may find something today."""
    return [tenant for (tenant,) in rows(connection, TENANTS, {})]


def expire_credits(ctx: Context, as_of: date | None) -> dict[str, Any]:
    """Expire each credit of the tenant whose last day is before `as_of`.

    Raises:
        PartlyFailed: Some could not be; the others are.
    """
    day = day_of(ctx.transaction, ctx.tenant_id, as_of)
    with ctx.transaction() as connection:
        due = rows_as(ExpiredCredit, connection, EXPIRED, {"tenant": ctx.tenant_id, "as_of": day})

    def work(credit: ExpiredCredit) -> dict[str, Any]:
        with ctx.transaction() as connection:
            amount = _expire(connection, ctx, credit, day)
        return {"client_id": credit.client_id, "amount": str(amount)}

    batch = for_each(ctx, "expire", {credit.credit_id: credit for credit in due}, work)
    batch.raise_failures("credits were not expired")
    with ctx.transaction() as connection:
        count, amount = one(connection, DONE_BY_JOB, {"tenant": ctx.tenant_id, "job_id": ctx.job_id}) or ()
    ctx.progress(1, 1, f"{count} credits expired")
    return {"as_of": str(day), "expired": count, "amount": str(amount)}


def _expire(connection: Connection, ctx: Context, credit: ExpiredCredit, day: date) -> Decimal:
    """Give the amount that was written off."""
    parameters: dict[str, object] = {
        "tenant": ctx.tenant_id,
        "job_id": ctx.job_id,
        "credit_id": credit.credit_id,
        "client_id": credit.client_id,
        "as_of": day,
        "note": f"Expired after {credit.expires_on}",
    }
    account = one(connection, LOCK_ACCOUNT, parameters)
    if account is None:
        raise NoCreditAccount.about(credit.client_id, credit.credit_id)
    found = one(connection, LOCK_CREDIT, parameters)
    if found is None:
        return Decimal("0.00")
    remaining: Decimal = found[0]
    if account[0] < remaining:
        raise BalanceBelowCredit.about(credit.client_id, account[0], credit.credit_id, remaining)
    for statement in (ENTER, CLEAR_CREDIT, LOWER_BALANCE):
        run(connection, statement, parameters | {"remaining": remaining})
    write_entry(
        connection,
        ctx.tenant_id,
        job_id=ctx.job_id,
        action="credit.expired",
        subject_id=credit.credit_id,
        detail={"amount": str(remaining), "expires_on": str(credit.expires_on), "as_of": str(day)},
    )
    return remaining
