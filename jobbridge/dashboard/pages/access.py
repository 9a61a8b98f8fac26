"""Who may come in, and what they did: tokens are made and revoked here; the audit is read, page by page."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response

from jobbridge.core.access import Role
from jobbridge.core.keys import TenantId
from jobbridge.dashboard.access.request_context import Rule, Visit
from jobbridge.errors import TokenRefused
from jobbridge.store.access.tokens import TokenRow

_NAME_LIMIT = 200
_LONGEST_DAYS = 3660
_REVOKED_SHOWN = 50
_ACTIONS_SHOWN = 50


def access(visit: Visit) -> Response:
    """The tokens, and a form for another one."""
    return _page(visit)


def create_token(visit: Visit) -> Response:
    """Make a token, and show it for the only time."""
    name = visit.form.get("name", "").strip()
    note = visit.dashboard.access.note
    try:
        role, tenant, lasts = _asked(visit, name)
        token, row = visit.dashboard.access.create(
            name,
            role,
            tenant=tenant,
            expires_at=None if lasts is None else datetime.now(UTC) + lasts,
            created_by=visit.principal.name,
        )
    except TokenRefused as error:
        note(
            visit.principal, "create token", outcome="refused", subject=name[:_NAME_LIMIT], reason=str(error)
        )
        return _page(visit, status=409, problem=str(error))
    note(
        visit.principal,
        "create token",
        subject=name,
        details={"role": row.role.value, "tenant": row.tenant, "token_id": str(row.token_id)},
    )
    return _page(visit, token=token, made=row)


def revoke_token(visit: Visit) -> Response:
    """Make a token of no use, at once."""
    name = visit.form.get("token_id", "")
    was_good = visit.dashboard.access.revoke(name)
    outcome = "done" if was_good else "was of no use"
    visit.dashboard.access.note(visit.principal, "revoke token", outcome=outcome, subject=name[:_NAME_LIMIT])
    return RedirectResponse(visit.path("access"), status_code=303)


def audit(visit: Visit) -> Response:
    """What people did, the newest first."""
    before = visit.request.query_params.get("before", "")
    if before and not (before.isascii() and before.isdigit() and len(before) < 19):
        raise HTTPException(400, "The address says no place to go on from. Begin at the newest.")
    rows = visit.dashboard.access.actions(
        visit.tenant, limit=_ACTIONS_SHOWN + 1, before=int(before) if before else None
    )
    shown = rows[:_ACTIONS_SHOWN]
    kept = {"tenant": visit.tenant} if visit.tenant and visit.principal.tenant is None else {}
    older = kept | {"before": str(shown[-1].audit_id)} if len(rows) > len(shown) else None
    return visit.dashboard.page(
        visit,
        "audit.html",
        actions=shown,
        older=None if older is None else visit.path("audit", query=older),
        newest=visit.path("audit", query=kept) if before else None,
        tenant=visit.tenant,
    )


def _asked(visit: Visit, name: str) -> tuple[Role, TenantId | None, timedelta | None]:
    """Read what kind of token is asked for.

    Raises:
        TokenRefused: A value does not fit.
    """
    if not 1 <= len(name) <= _NAME_LIMIT or not name.isprintable():
        raise TokenRefused(
            f"The name has {len(name)} characters; give it 1 to {_NAME_LIMIT} that can be read."
        )
    whose = visit.form.get("tenant", "").strip()
    if len(whose) > _NAME_LIMIT:
        raise TokenRefused(
            f"The tenant has {len(whose)} characters, and cannot have more than {_NAME_LIMIT}."
        )
    tenant = visit.dashboard.tenant_ids.written(whose) if whose else None
    if whose and tenant is None:
        raise TokenRefused(f"There can be no tenant {whose[:60]!r} here: tenants are uuids.")
    days = visit.form.get("days", "").strip()
    if days and not (days.isascii() and days.isdigit() and len(days) < 5 and 1 <= int(days) <= _LONGEST_DAYS):
        raise TokenRefused(f"Days are {days[:20]!r}; say 1 to {_LONGEST_DAYS}, or nothing.")
    try:
        role = Role(visit.form.get("role", ""))
    except ValueError:
        raise TokenRefused("There is no such role; choose one.") from None
    return role, tenant, timedelta(days=int(days)) if days else None


def _page(
    visit: Visit,
    *,
    status: int = 200,
    problem: str = "",
    token: str | None = None,
    made: TokenRow | None = None,
) -> Response:
    now = datetime.now(UTC)
    rows = visit.dashboard.access.all()
    good = [row for row in rows if row.revoked_at is None]
    revoked = [row for row in rows if row.revoked_at is not None]
    return visit.dashboard.page(
        visit,
        "access.html",
        status=status,
        good=good,
        revoked=revoked[::-1][:_REVOKED_SHOWN],
        now=now,
        roles=list(Role),
        problem=problem,
        token=token,
        made=made,
        asked=visit.form if problem else {},
    )


RULES = (
    Rule(path="/access", name="access", endpoint=access, needs=Role.ADMIN, is_global=True),
    Rule(
        path="/access/create",
        name="create_token",
        endpoint=create_token,
        needs=Role.ADMIN,
        methods=("POST",),
        is_global=True,
    ),
    Rule(
        path="/access/revoke",
        name="revoke_token",
        endpoint=revoke_token,
        needs=Role.ADMIN,
        methods=("POST",),
        is_global=True,
    ),
    Rule(path="/audit", name="audit", endpoint=audit, needs=Role.ADMIN),
)
