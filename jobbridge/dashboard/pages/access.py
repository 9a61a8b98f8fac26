"""Who may come in, and what they did: tokens are made and revoked here; the audit is read, page by page."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response

from jobbridge.core.access import Role
from jobbridge.core.keys import TenantId
from jobbridge.core.tenant_names import tenant_named
from jobbridge.dashboard.access.request_context import POST, RequestContext, Rule
from jobbridge.errors import TokenRefused, UnsupportedOption
from jobbridge.store.access.tokens import TokenRow

_NAME_LIMIT = 200
_LONGEST_DAYS = 3660
_REVOKED_SHOWN = 50
_ACTIONS_SHOWN = 50


def access(context: RequestContext) -> Response:
    """The tokens, and a form for another one."""
    return _page(context)


def create_token(context: RequestContext) -> Response:
    """Make a token, and show it for the only time."""
    name = context.form.get("name", "").strip()
    try:
        role, tenant, lasts = _asked(context, name)
        token, row = context.dashboard.access.create(
            name,
            role,
            tenant=tenant,
            expires_at=None if lasts is None else datetime.now(UTC) + lasts,
            created_by=context.principal.name,
        )
    except (TokenRefused, UnsupportedOption) as error:
        context.note("create token", outcome="refused", subject=name[:_NAME_LIMIT], reason=str(error))
        return _page(context, status=409, problem=str(error))
    context.note(
        "create token",
        subject=name,
        details={"role": row.role.value, "tenant": row.tenant, "token_id": str(row.token_id)},
    )
    return _page(context, token=token, made=row)


def revoke_token(context: RequestContext) -> Response:
    """Make a token of no use, at once."""
    name = context.form.get("token_id", "")
    was_good = context.dashboard.access.revoke(name)
    outcome = "done" if was_good else "was of no use"
    context.note("revoke token", outcome=outcome, subject=name[:_NAME_LIMIT])
    return RedirectResponse(context.path("access"), status_code=303)


def audit(context: RequestContext) -> Response:
    """What people did, the newest first."""
    before = context.request.query_params.get("before", "")
    if before and not (before.isascii() and before.isdigit() and len(before) < 19):
        raise HTTPException(400, "The address says no place to go on from. Begin at the newest.")
    rows = context.dashboard.access.actions(
        context.tenant, limit=_ACTIONS_SHOWN + 1, before=int(before) if before else None
    )
    shown = rows[:_ACTIONS_SHOWN]
    kept = context.of_tenant(context.tenant)
    older = kept | {"before": str(shown[-1].audit_id)} if len(rows) > len(shown) else None
    return context.dashboard.page(
        context,
        "audit.html",
        actions=shown,
        older=None if older is None else context.path("audit", query=older),
        newest=context.path("audit", query=kept) if before else None,
        tenant=context.tenant,
    )


def _asked(context: RequestContext, name: str) -> tuple[Role, TenantId | None, timedelta | None]:
    """Read what kind of token is asked for.

    Raises:
        TokenRefused, UnsupportedOption: A value does not fit.
    """
    if not 1 <= len(name) <= _NAME_LIMIT or not name.isprintable():
        raise TokenRefused(
            f"The name has {len(name)} characters; give it 1 to {_NAME_LIMIT} that can be read."
        )
    whose = context.form.get("tenant", "").strip()
    if len(whose) > _NAME_LIMIT:
        raise TokenRefused(
            f"The tenant has {len(whose)} characters, and cannot have more than {_NAME_LIMIT}."
        )
    tenant = context.dashboard.tenant_ids.written(tenant_named(whose)) if whose else None
    if whose and tenant is None:
        raise TokenRefused(f"There can be no tenant {whose[:60]!r} here: tenants are uuids.")
    days = context.form.get("days", "").strip()
    if days and not (days.isascii() and days.isdigit() and len(days) < 5 and 1 <= int(days) <= _LONGEST_DAYS):
        raise TokenRefused(f"Days are {days[:20]!r}; say 1 to {_LONGEST_DAYS}, or nothing.")
    try:
        role = Role(context.form.get("role", ""))
    except ValueError:
        raise TokenRefused("There is no such role; choose one.") from None
    return role, tenant, timedelta(days=int(days)) if days else None


def _page(
    context: RequestContext,
    *,
    status: int = 200,
    problem: str = "",
    token: str | None = None,
    made: TokenRow | None = None,
) -> Response:
    now = datetime.now(UTC)
    rows = context.dashboard.access.all()
    good = [row for row in rows if row.revoked_at is None]
    revoked = [row for row in rows if row.revoked_at is not None]
    return context.dashboard.page(
        context,
        "access.html",
        status=status,
        good=good,
        revoked=revoked[::-1][:_REVOKED_SHOWN],
        now=now,
        roles=list(Role),
        problem=problem,
        token=token,
        made=made,
        asked=context.form if problem else {},
    )


RULES = (
    Rule("/access", "access", access, Role.ADMIN, is_global=True),
    Rule("/access/create", "create_token", create_token, Role.ADMIN, methods=POST, is_global=True),
    Rule("/access/revoke", "revoke_token", revoke_token, Role.ADMIN, methods=POST, is_global=True),
    Rule("/audit", "audit", audit, Role.ADMIN),
)
