"""Links that show one job's state to whoever has them: for the customer who waits for a document.

As with tokens, a link is 256 random bits and only its hash is stored. Whatever is wrong with one (mistyped, made up,
expired, revoked, its job deleted), the same two statements are made and the answer is the same.
"""

from __future__ import annotations

import hashlib
import secrets
from datetime import datetime, timedelta
from typing import LiteralString
from uuid import UUID

from jobbridge.core.keys import JobKey, TenantId
from jobbridge.store.database import Database
from jobbridge.store.jobs.queries import JobStore
from jobbridge.store.jobs.rows import JobRow
from jobbridge.store.values import as_text

CREATE: LiteralString = """
INSERT INTO public.job_links (hash, of_tenant, job_id, created_by, expires_at)
VALUES (%(hash)s, %(tenant)s, %(job_id)s, %(created_by)s, now() + %(lasts)s::interval)
RETURNING expires_at
"""

FIND: LiteralString = """
SELECT of_tenant, job_id FROM public.job_links WHERE hash = %(hash)s AND expires_at > now()
"""

REVOKE: LiteralString = "DELETE FROM public.job_links WHERE job_id = %(job_id)s AND of_tenant = %(tenant)s"

DELETE_EXPIRED: LiteralString = """
DELETE FROM public.job_links
WHERE hash IN (
    SELECT hash FROM public.job_links WHERE expires_at <= now() ORDER BY expires_at LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
)
"""

#: Whom nobody is: looked for when there is no link, so that this takes as long as when there is one.
_NOBODYS = JobKey(tenant=TenantId("ffffffff-ffff-4fff-bfff-ffffffffffff"), job_id=UUID(int=0))


class LinkStore:
    """Makes, follows and revokes links."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._jobs = JobStore(database)

    def create(self, key: JobKey, *, lasts: timedelta, created_by: str) -> tuple[str, datetime]:
        """Make a link; gives its secret, for the only time, and when it ends."""
        secret = secrets.token_urlsafe(32)
        params = {
            "hash": _hash(secret),
            "tenant": key.tenant,
            "job_id": key.job_id,
            "created_by": as_text(created_by),
            "lasts": lasts,
        }
        row = self._database.run(lambda own: own.execute(CREATE, params).fetchone())
        assert row is not None
        return secret, row[0]

    def find(self, secret: str) -> JobRow | None:
        """Give the job that a link is for; None: it is of no use."""
        found = self._database.run(lambda own: own.execute(FIND, {"hash": _hash(secret)}).fetchone())
        key = _NOBODYS if found is None else JobKey(tenant=TenantId(found[0]), job_id=found[1])
        return self._jobs.get(key)

    def revoke(self, key: JobKey) -> int:
        """Make all links of a job of no use; gives their number."""
        params = {"tenant": key.tenant, "job_id": key.job_id}
        return self._database.run(lambda own: own.execute(REVOKE, params).rowcount)

    def delete_expired(self, *, limit: int = 1000) -> int:
        """Delete up to `limit` that have ended; gives how many."""
        return self._database.run(lambda own: own.execute(DELETE_EXPIRED, {"limit": limit}).rowcount)


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "replace")).digest()
