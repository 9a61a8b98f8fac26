"""Tokens of the monitor, and the record of what was done with them.

A token is 256 random bits, so a plain hash of it can be neither guessed nor looked up, and asking for it by an index
tells nothing by its time. Who has the database's hashes has no token.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, LiteralString
from uuid import UUID

from jobbridge.core.access import Principal, Role
from jobbridge.core.keys import TenantId
from jobbridge.errors import TokenRefused
from jobbridge.store.database import Database
from jobbridge.store.fetch import all_rows, first_row
from jobbridge.store.values import as_jsonb, as_text

#: What tokens begin with, so that scanners find one that was committed somewhere.
PREFIX = "jbt_"

_COLUMNS: LiteralString = """token_id, name, hash, role, of_tenant, created_by, created_at, expires_at, used_at,
    revoked_at"""

CREATE: LiteralString = f"""
INSERT INTO public.job_tokens (name, hash, role, of_tenant, created_by, expires_at)
VALUES (%(name)s, %(hash)s, %(role)s, %(of_tenant)s, %(created_by)s, %(expires_at)s)
ON CONFLICT (name) WHERE revoked_at IS NULL DO NOTHING
RETURNING {_COLUMNS}
"""

_IS_GOOD: LiteralString = "revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())"

FIND: LiteralString = f"SELECT {_COLUMNS} FROM public.job_tokens WHERE hash = %(hash)s AND {_IS_GOOD}"

#: By a session of it, which may have ended before its time.
GET: LiteralString = f"""
SELECT {_COLUMNS} FROM public.job_tokens
WHERE token_id = %(token_id)s AND {_IS_GOOD}
  AND NOT EXISTS (SELECT FROM public.job_signouts WHERE session = %(session)s)
"""

SIGN_OUT: LiteralString = """
INSERT INTO public.job_signouts (session, ends_at) VALUES (%(session)s, %(ends_at)s) ON CONFLICT DO NOTHING
"""

DELETE_SIGN_OUTS: LiteralString = """
DELETE FROM public.job_signouts
WHERE session IN (
    SELECT session FROM public.job_signouts WHERE ends_at <= now() ORDER BY ends_at LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
)
"""

STILL_GOOD: LiteralString = f"""
SELECT token_id FROM public.job_tokens WHERE token_id = ANY(%(token_ids)s) AND {_IS_GOOD}
"""

SIGNED_OUT: LiteralString = "SELECT session FROM public.job_signouts WHERE session = ANY(%(sessions)s)"

#: At most once a minute, so that looking at a page is no write.
NOTE_USE: LiteralString = """
UPDATE public.job_tokens SET used_at = now()
WHERE token_id = %(token_id)s AND (used_at IS NULL OR used_at < now() - interval '1 minute')
"""

LIST: LiteralString = f"SELECT {_COLUMNS} FROM public.job_tokens ORDER BY created_at, token_id"

REVOKE: LiteralString = """
UPDATE public.job_tokens SET revoked_at = now()
WHERE revoked_at IS NULL AND (name = %(name)s OR token_id::text = %(name)s)
RETURNING token_id
"""

NOTE_ACTION: LiteralString = """
INSERT INTO public.job_audit (actor, role, token_id, action, of_tenant, subject, outcome, reason, details)
VALUES (
    %(actor)s, %(role)s, %(token_id)s, %(action)s, %(of_tenant)s, %(subject)s, %(outcome)s, %(reason)s, %(details)s
)
"""

_ACTION: LiteralString = "audit_id, at, actor, role, action, of_tenant, subject, outcome, reason, details"

_ACTIONS: LiteralString = f"SELECT {_ACTION} FROM public.job_audit WHERE audit_id < %(before)s"

ACTIONS: LiteralString = f"{_ACTIONS} ORDER BY audit_id DESC LIMIT %(limit)s"

ACTIONS_OF_TENANT: LiteralString = f"""
{_ACTIONS} AND of_tenant = %(tenant)s ORDER BY audit_id DESC LIMIT %(limit)s
"""

#: Of what is nobody's in particular, as a queue is: of the newest so many.
ACTIONS_ON: LiteralString = f"""
SELECT {_ACTION}
FROM ({_ACTIONS} AND of_tenant IS NULL ORDER BY audit_id DESC LIMIT %(read)s) AS newest
WHERE action = ANY(%(actions)s) AND subject = %(subject)s
ORDER BY audit_id DESC
LIMIT %(limit)s
"""
#: That many actions of no tenant are read to find those on one thing.
_READ = 10_000

#: Above all ids.
_NEWEST = 2**63 - 1


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenRow:
    """A token, without itself.

    Attributes:
        hash: Of the token. Sessions are signed with it too, beside a secret that is not in the database.
        tenant: The only one that it gives access to; None: all.
    """

    token_id: UUID
    name: str
    hash: bytes = field(repr=False)
    role: Role
    tenant: TenantId | None
    created_by: str | None
    created_at: datetime
    expires_at: datetime | None
    used_at: datetime | None
    revoked_at: datetime | None

    @property
    def principal(self) -> Principal:
        return Principal(name=self.name, role=self.role, tenant=self.tenant, token_id=self.token_id)


@dataclass(frozen=True, kw_only=True, slots=True)
class ActionRow:
    """Something that somebody did, or was refused."""

    audit_id: int
    at: datetime
    actor: str
    role: Role | None
    action: str
    tenant: TenantId | None
    subject: str | None
    outcome: str
    reason: str | None
    details: Mapping[str, Any]


class AccessStore:
    """Makes, finds and revokes tokens; records actions."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(
        self,
        name: str,
        role: Role,
        *,
        tenant: TenantId | None = None,
        expires_at: datetime | None = None,
        created_by: str | None = None,
    ) -> tuple[str, TokenRow]:
        """Make a token; gives it, for the only time.

        Raises:
            TokenRefused: One that was not revoked has that name.
        """
        token = PREFIX + secrets.token_urlsafe(32)
        params = {
            "name": name,
            "hash": _hash(token),
            "role": role.value,
            "of_tenant": tenant,
            "created_by": created_by,
            "expires_at": expires_at,
        }
        row = self._first(CREATE, params)
        if row is None:
            raise TokenRefused(
                f"There is a token {name!r} already.",
                hint=f"Choose another name, or revoke it first: `jobbridge tokens revoke {name}`.",
            )
        return token, row

    def find(self, token: str) -> TokenRow | None:
        """Give what a token stands for; None: it is no token, was revoked, or its time is over."""
        row = self._first(FIND, {"hash": _hash(token)})
        if row is not None:
            self._database.run(lambda own: own.execute(NOTE_USE, {"token_id": row.token_id}))
        return row

    def get(self, token_id: UUID, *, session: bytes = b"") -> TokenRow | None:
        """Give the token of that id, if it is good, and that session of it was not ended."""
        return self._first(GET, {"token_id": token_id, "session": session})

    def sign_out(self, session: bytes, ends_at: datetime) -> None:
        """End a session, which would be good until then."""
        params = {"session": session, "ends_at": ends_at}
        self._database.run(lambda own: own.execute(SIGN_OUT, params))

    def delete_sign_outs(self, *, limit: int = 1000) -> int:
        """Forget up to `limit` sessions whose time is over anyway; gives how many."""
        return self._database.run(lambda own: own.execute(DELETE_SIGN_OUTS, {"limit": limit}).rowcount)

    def all(self) -> Sequence[TokenRow]:
        """Give all tokens that were ever made, oldest first."""
        return self._database.run(lambda own: all_rows(own, _token_row, LIST))

    def revoke(self, name: str) -> bool:
        """Make a token of no use, by its name or id; whether there was one. Sessions made of it end with it."""
        return self._database.run(lambda own: own.execute(REVOKE, {"name": name}).fetchone()) is not None

    def note(
        self,
        who: Principal,
        action: str,
        *,
        outcome: str = "done",
        tenant: TenantId | None = None,
        subject: str | None = None,
        reason: str | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        """Record an action."""
        params = {
            "actor": as_text(who.name),
            "role": who.role.value,
            "token_id": who.token_id,
            "action": action,
            "of_tenant": tenant,
            "subject": as_text(subject),
            "outcome": outcome,
            "reason": as_text(reason),
            "details": as_jsonb(dict(details or {})),
        }
        self._database.run(lambda own: own.execute(NOTE_ACTION, params))

    def actions(
        self, tenant: TenantId | None = None, *, limit: int = 100, before: int | None = None
    ) -> Sequence[ActionRow]:
        """Give the newest actions: all, or those on one tenant's jobs.

        Args:
            tenant: Whose.
            limit: At most so many.
            before: The `audit_id` of the last one of the page before.
        """
        statement = ACTIONS if tenant is None else ACTIONS_OF_TENANT
        params = {"tenant": tenant, "limit": limit, "before": _NEWEST if before is None else before}
        return self._database.run(lambda own: all_rows(own, _action_row, statement, params))

    def actions_on(self, subject: str, actions: Sequence[str], *, limit: int = 50) -> Sequence[ActionRow]:
        """Give the newest actions of these kinds on a thing of no tenant, such as a queue.

        Args:
            subject: What it was done to.
            actions: The kinds.
            limit: At most so many; what is behind ten thousand other actions is not found.
        """
        params = {
            "subject": subject, "actions": list(actions), "read": _READ, "before": _NEWEST, "limit": limit,
        }  # fmt: skip
        return self._database.run(lambda own: all_rows(own, _action_row, ACTIONS_ON, params))

    def _first(self, statement: LiteralString, params: dict[str, Any]) -> TokenRow | None:
        return self._database.run(lambda own: first_row(own, _token_row, statement, params))


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _token_row(*, role: str, of_tenant: str | None, **columns: Any) -> TokenRow:
    return TokenRow(role=Role(role), tenant=None if of_tenant is None else TenantId(of_tenant), **columns)


def _action_row(*, role: str | None, of_tenant: str | None, **columns: Any) -> ActionRow:
    return ActionRow(
        role=None if role is None else Role(role),
        tenant=None if of_tenant is None else TenantId(of_tenant),
        **columns,
    )
