"""`cleanup-ai-session-keys`: deactivate AI session keys past their expiry. Enterprise only.

A job of the system goes over all tenants; one that is sent for a tenant does that one. Step by step, what if the
process dies in between, or the job comes twice?

- A tenant's keys and their audit rows are one statement: all of it has happened, or nothing; the next attempt, or the
  job ten minutes later, finds what is left.
- The same job, or two, run at once: the second waits for the first one's rows, and then finds them inactive.
- What the job reports is read back from the audit rows (each names its job), so it is complete after a crash too.
- A key that was deactivated keeps the time and the reason that it got first.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import AwareDatetime

from jobbridge import JobContext, job
from jobbridge.handlers.batches import RETRY, Context, for_each
from jobbridge.handlers.job_data import JobData
from jobbridge.handlers.sql import Connection, one, rows, run
from jobbridge.handlers.tenants import is_everybodys, now_of, transaction_of

#: For the system.
SCHEDULE = "*/10 * * * *"

TENANTS = """
SELECT DISTINCT tenant
FROM psa.ai_session_keys
WHERE is_active AND expires_at <= %(now)s
ORDER BY tenant
"""

DEACTIVATE = """
WITH deactivated AS (
    UPDATE psa.ai_session_keys
    SET is_active = false, deactivated_at = %(now)s, deactivation_reason = 'expired'
    WHERE tenant = %(tenant)s AND is_active AND expires_at <= %(now)s
    RETURNING tenant, key_id, user_name, expires_at
)
INSERT INTO psa.audit_log (tenant, job_id, action, subject_id, detail)
SELECT tenant, %(job_id)s, 'ai_session_key.deactivated', key_id,
    jsonb_build_object('reason', 'expired', 'user', user_name, 'expires_at', expires_at)
FROM deactivated
"""

DONE_BY_JOB = """
SELECT count(DISTINCT tenant), count(*)
FROM psa.audit_log
WHERE job_id = %(job_id)s AND action = 'ai_session_key.deactivated'
"""


class CleanUpKeys(JobData):
    """Deactivate the keys that have expired at `as_of`, by default now."""

    as_of: AwareDatetime | None = None


@job("cleanup-ai-session-keys", retry=RETRY, schedule=SCHEDULE, enterprise_only=True)
def cleanup_ai_session_keys(ctx: JobContext, data: CleanUpKeys) -> dict[str, Any]:
    """Deactivate AI session keys past their expiry, over all tenants."""
    return deactivate_keys(ctx, data.as_of)


def tenants_with_expired_keys(connection: Connection, now: datetime) -> list[str]:
    """Give the tenants that have active keys past their expiry."""
    return [tenant for (tenant,) in rows(connection, TENANTS, {"now": now})]


def deactivate_keys(ctx: Context, as_of: datetime | None) -> dict[str, Any]:
    """Deactivate each key that has expired.

    Raises:
        PartlyFailed: Those of some tenants could not be; the others are.
    """
    with ctx.transaction() as connection:
        now = as_of or now_of(connection)
        tenants = (
            tenants_with_expired_keys(connection, now) if is_everybodys(ctx.tenant_id) else [ctx.tenant_id]
        )

    def work(tenant: str) -> dict[str, int]:
        with transaction_of(ctx.transaction, tenant) as connection:
            keys = run(connection, DEACTIVATE, {"tenant": tenant, "job_id": ctx.job_id, "now": now})
        return {"keys": keys}

    batch = for_each(ctx, "deactivate", dict(zip(tenants, tenants, strict=True)), work)
    batch.raise_failures("tenants' keys were not deactivated")
    with ctx.transaction() as connection:
        count, keys = one(connection, DONE_BY_JOB, {"job_id": ctx.job_id}) or ()
    ctx.progress(1, 1, f"{keys} keys deactivated")
    return {"as_of": now.isoformat(), "tenants": count, "keys": keys}
