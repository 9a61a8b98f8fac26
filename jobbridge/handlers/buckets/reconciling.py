"""`reconcile-bucket-usage`: recompute what was used of each prepaid bucket in the running period.

Used and overage minutes are computed from the approved, billable time of the period, by the rules by which it will be
billed (`jobbridge.handlers.invoicing.bucket_time`): so what a client sees during the month is what the invoice says.

Step by step, what if the process dies in between, or the job comes twice?

- A bucket is one transaction that sets figures, and adds to none: dies before its commit, and the next attempt
  computes it; dies after it, and the next attempt computes the same.
- The same job, or two, run at once, or an invoice is made meanwhile: each locks the client first, so they come one
  after another. Time that is recorded meanwhile is found by the next run.
- A period's row is made if it is missing. What it carries over is decided then, once.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from datetime import date
from typing import Any

from jobbridge import FanOut, JobContext, job
from jobbridge.handlers.batches import RETRY, Context, for_each
from jobbridge.handlers.buckets.periods import BucketPeriod, carried_over, running_period
from jobbridge.handlers.invoicing.accounts import lock_client, worked_account_of
from jobbridge.handlers.invoicing.billing import bucket_use, line_for
from jobbridge.handlers.invoicing.errors import NoRate
from jobbridge.handlers.invoicing.invoices import KEEP_BUCKET_USE
from jobbridge.handlers.invoicing.models import Account, BucketUse, ContractLine, Period, TimeEntry
from jobbridge.handlers.job_data import DailyJob
from jobbridge.handlers.providers import day_of
from jobbridge.handlers.sql import Connection, rows, rows_as, run
from jobbridge.handlers.tenants import over_tenants

#: Daily, for each tenant.
SCHEDULE = "30 2 * * *"

TENANTS = """
SELECT DISTINCT tenant
FROM psa.contract_lines
WHERE kind = 'bucket'
ORDER BY tenant
"""

BUCKETS = """
SELECT line.contract_line_id, contract.client_id
FROM psa.contracts AS contract
JOIN psa.contract_lines AS line USING (tenant, contract_id)
WHERE contract.tenant = %(tenant)s
  AND line.kind = 'bucket'
  AND contract.starts_on <= %(as_of)s
  AND COALESCE(contract.ends_on, 'infinity'::date) >= %(as_of)s
ORDER BY contract.client_id, line.contract_line_id
"""

# The month before and the month after are enough to know what is carried over, and what is taken.
PERIODS = """
SELECT period_start, period_end, included_minutes, rolled_over_minutes, used_minutes
FROM psa.bucket_usage
WHERE tenant = %(tenant)s
  AND contract_line_id = %(contract_line_id)s
  AND period_end >= %(as_of)s::date - 32
  AND period_start <= %(as_of)s::date + 32
ORDER BY period_start
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bucket:
    contract_line_id: str
    client_id: str


@job("reconcile-bucket-usage", retry=RETRY, schedule=SCHEDULE)
def reconcile_bucket_usage(ctx: JobContext, data: DailyJob) -> dict[str, Any] | FanOut:
    """Recompute used and overage minutes of a tenant's prepaid buckets for the running period."""
    return over_tenants(ctx, data, tenants_with_buckets) or reconcile_buckets(ctx, data.as_of)


def tenants_with_buckets(connection: Connection) -> list[str]:
    """Give the tenants that sell time in buckets."""
    return [tenant for (tenant,) in rows(connection, TENANTS, {})]


def reconcile_buckets(ctx: Context, as_of: date | None) -> dict[str, Any]:
    """Recompute each bucket whose contract runs on `as_of`.

    Raises:
        PartlyFailed: Some could not be; the others are.
    """
    day = day_of(ctx.transaction, ctx.tenant_id, as_of)
    with ctx.transaction() as connection:
        buckets = rows_as(Bucket, connection, BUCKETS, {"tenant": ctx.tenant_id, "as_of": day})

    def work(bucket: Bucket) -> dict[str, Any]:
        with ctx.transaction() as connection:
            period, use = recompute(connection, ctx.tenant_id, bucket, day)
        return {
            "period": str(period),
            "included": use.included_minutes,
            "rolled_over": use.rolled_over_minutes,
            "used": use.used_minutes,
            "overage": use.overage_minutes,
        }

    batch = for_each(ctx, "reconcile", {bucket.contract_line_id: bucket for bucket in buckets}, work)
    batch.raise_failures("buckets were not reconciled")
    overage = {line: use["overage"] for line, use in batch.results.items() if use["overage"]}
    ctx.progress(1, 1, f"{len(buckets)} buckets, {len(overage)} beyond what they include")
    return {"as_of": str(day), "buckets": batch.results, "overage_minutes": sum(overage.values())}


def recompute(connection: Connection, tenant: str, bucket: Bucket, day: date) -> tuple[Period, BucketUse]:
    """Write and give what was used of a bucket in the period that `day` is in. Leaves the commit to the caller."""
    client = lock_client(connection, tenant, bucket.client_id)
    known = rows_as(
        BucketPeriod,
        connection,
        PERIODS,
        {"tenant": tenant, "contract_line_id": bucket.contract_line_id, "as_of": day},
    )
    period = running_period(day, known)
    account = worked_account_of(connection, tenant, client, period)
    line = next(line for line in account.lines if line.contract_line_id == bucket.contract_line_id)
    rolled_over = {line.contract_line_id: carried_over(period, known), **account.rolled_over}
    use = bucket_use(line, replace(account, rolled_over=rolled_over), _entries_of(line, account), period)
    run(
        connection,
        KEEP_BUCKET_USE,
        {"tenant": tenant, "start": period.start, "end": period.end, **asdict(use)},
    )
    return period, use


def _entries_of(line: ContractLine, account: Account) -> list[TimeEntry]:
    return [entry for entry in account.entries if _goes_to(line, entry, account)]


def _goes_to(line: ContractLine, entry: TimeEntry, account: Account) -> bool:
    try:
        return line_for(entry, account) is line
    except NoRate:  # the invoice will say so; it is nothing of this bucket's
        return False
