"""Idempotency keys: the same request, sent again, makes no second job.

`CLAIM` waits for another transaction that claims the same key. Once that is committed, `FIND`, a statement of its own,
sees what it made; if it was rolled back, the claim is ours. So of any number at once one makes the job.

What if the process dies between two steps? Key, job and message are one transaction: there is all of it, or nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import LiteralString
from uuid import UUID

from jobbridge.core.keys import JobKey, TenantId
from jobbridge.postgres.caller_connection import DriverConnection
from jobbridge.store.database import Database

#: A key is known for so long, at least.
REMEMBERED = timedelta(hours=48)

CLAIM: LiteralString = """
INSERT INTO public.job_requests (scope, key, fingerprint)
VALUES (%(scope)s, %(key)s, %(fingerprint)s)
ON CONFLICT (scope, key) DO NOTHING
RETURNING 1
"""

FIND: LiteralString = """
SELECT fingerprint, of_tenant, job_id FROM public.job_requests WHERE scope = %(scope)s AND key = %(key)s
"""

SETTLE: LiteralString = """
UPDATE public.job_requests SET of_tenant = %(tenant)s, job_id = %(job_id)s
WHERE scope = %(scope)s AND key = %(key)s
"""

DELETE_OLD: LiteralString = """
DELETE FROM public.job_requests
WHERE (scope, key) IN (
    SELECT scope, key FROM public.job_requests
    WHERE made_at < now() - %(older_than)s::interval
    ORDER BY made_at
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
)
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class RequestKey:
    """What a client named its request.

    Attributes:
        scope: The tenant that it is bound to, or empty: clients of two tenants may choose the same key.
        fingerprint: A hash of what is asked.
    """

    scope: str
    key: str
    fingerprint: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Earlier:
    """The request that had the key first.

    Attributes:
        is_same: It asked the same.
    """

    is_same: bool
    job: JobKey | None


def claim(connection: DriverConnection, request: RequestKey) -> Earlier | None:
    """Take a key until the transaction ends; gives who has it already, waiting for one that is being made.

    Args:
        connection: In a transaction.
        request: The key.
    """
    params = {"scope": request.scope, "key": request.key, "fingerprint": request.fingerprint}
    while connection.execute(CLAIM, params).fetchone() is None:
        found = connection.execute(FIND, params).fetchone()
        if found is None:
            continue  # it was deleted in between: the key is free
        fingerprint, tenant, job_id = found
        job = None if job_id is None else JobKey(tenant=TenantId(tenant), job_id=job_id)
        return Earlier(is_same=bytes(fingerprint) == request.fingerprint, job=job)
    return None


def settle(connection: DriverConnection, request: RequestKey, tenant: TenantId, job_id: UUID) -> None:
    """Write down what came of a request whose key this transaction took."""
    connection.execute(
        SETTLE, {"scope": request.scope, "key": request.key, "tenant": tenant, "job_id": job_id}
    )


def delete_old(database: Database, *, older_than: timedelta = REMEMBERED, limit: int = 1000) -> int:
    """Forget up to `limit` keys; gives how many."""
    params = {"older_than": older_than, "limit": limit}
    return database.run(lambda own: own.execute(DELETE_OLD, params).rowcount)
