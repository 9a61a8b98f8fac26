"""Which tenants there are, what they have, and which of them are suspended."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response

from jobbridge.core.access import Role
from jobbridge.core.keys import SYSTEM_TENANT, TenantId
from jobbridge.core.status import JobStatus
from jobbridge.dashboard.access.request_context import POST, RequestContext, Rule, storable
from jobbridge.errors import UnsupportedOption
from jobbridge.store.tenants.overview import TenantList

#: In the order of the columns; what is not here is in "other".
SHOWN = (
    JobStatus.PROCESSING, JobStatus.QUEUED, JobStatus.SCHEDULED, JobStatus.WAITING, JobStatus.RETRYING,
    JobStatus.FAILED, JobStatus.COMPLETED,
)  # fmt: skip
_NAME_LIMIT = 200


def tenants(context: RequestContext) -> Response:
    """A page of the tenants, by name."""
    query = context.request.query_params
    text, after = storable(query.get("text", "")).strip(), storable(query.get("after", ""))
    only_suspended = query.get("state") == "suspended"
    page = TenantList(context.app.database).page(text=text, after=after, only_suspended=only_suspended)
    kept = ({"text": text} if text else {}) | ({"state": "suspended"} if only_suspended else {})
    return context.dashboard.page(
        context,
        "tenants.html",
        tenants=page.tenants,
        statuses=SHOWN,
        text=text,
        only_suspended=only_suspended,
        here=context.path("tenants", query=kept | ({"after": after} if after else {})),
        first=context.path("tenants", query=kept) if after else None,
        following=context.path("tenants", query=kept | {"after": page.next}) if page.next else None,
        may_act=context.principal.may(Role.ADMIN),
        system=SYSTEM_TENANT,
    )


def suspend(context: RequestContext) -> Response:
    """Keep a tenant's jobs from starting."""
    tenant, reason = _tenant_of(context), context.form.get("reason", "").strip() or None
    try:
        is_new = context.app.tenants.suspend(tenant, reason=reason, suspended_by=context.principal.name)
    except UnsupportedOption as error:
        context.note("suspend", outcome="refused", tenant=tenant, reason=str(error))
        raise HTTPException(409, str(error)) from error
    outcome = "done" if is_new else "was suspended before"
    context.note("suspend", outcome=outcome, tenant=tenant, reason=reason)
    return _back(context, tenant)


def resume(context: RequestContext) -> Response:
    """Let a tenant's jobs start again."""
    tenant = _tenant_of(context)
    outcome = "done" if context.app.tenants.resume(tenant) else "was not suspended"
    context.note("resume", outcome=outcome, tenant=tenant)
    return _back(context, tenant)


def _tenant_of(context: RequestContext) -> TenantId:
    name = context.form.get("tenant", "").strip()
    tenant = context.dashboard.tenant_ids.written(name) if 1 <= len(name) <= _NAME_LIMIT else None
    if tenant is None:
        context.note(context.request.url.path.rpartition("/")[2], outcome="refused")
        raise HTTPException(400, f"There can be no tenant {name[:_NAME_LIMIT]!r}. Send its name as `tenant`.")
    return tenant


def _back(context: RequestContext, tenant: TenantId) -> Response:
    return RedirectResponse(context.path("tenants", query={"text": tenant}), status_code=303)


RULES = (
    Rule("/tenants", "tenants", tenants, Role.VIEWER, is_global=True),
    Rule("/tenants/suspend", "suspend_tenant", suspend, Role.ADMIN, methods=POST, is_global=True),
    Rule("/tenants/resume", "resume_tenant", resume, Role.ADMIN, methods=POST, is_global=True),
)
