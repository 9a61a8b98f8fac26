"""What was given up, by type and error; sent again at a rate."""

from __future__ import annotations

import re
import time
from dataclasses import replace

from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response

from jobbridge.app.dead.letters import DeadFilter, groups
from jobbridge.app.dead.redrive import rate_of, redrive
from jobbridge.core.access import Role
from jobbridge.dashboard.access.request_context import POST, RequestContext, Rule
from jobbridge.errors import UnsupportedOption

#: Letters that are looked at to find groups, and groups that are shown.
_LOOKED_AT, _SHOWN = 20_000, 100
#: Seconds that one request works.
SECONDS = 10.0
_GROUP = re.compile(r"[0-9a-f]{10}")


def dead(context: RequestContext) -> Response:
    """Show what was given up, on both engines."""
    found = groups(context.app, DeadFilter(tenant=context.tenant), limit=_LOOKED_AT)
    return context.dashboard.page(
        context,
        "dead.html",
        found=found,
        groups=found.groups[:_SHOWN],
        may_act=context.principal.may(Role.OPERATOR),
        query=context.of_tenant(context.tenant),
    )


def retry_dead(context: RequestContext) -> Response:
    """Send a group again, each once, for some seconds; what is left is there to be gone on with."""
    group, rate = context.form.get("group", ""), context.form.get("rate", "").strip()
    try:
        if not _GROUP.fullmatch(group):
            raise UnsupportedOption(f"There is no group {group[:40]!r}.", hint="Choose one of the page.")
        a_second = rate_of(rate) if rate else None
    except UnsupportedOption as error:
        context.note("retry dead", tenant=context.tenant, outcome="refused", reason=str(error))
        raise HTTPException(400, f"{error} {error.hint}") from error
    where, until = replace(DeadFilter(group=group), tenant=context.tenant), time.monotonic() + SECONDS
    done = redrive(context.app, where, rate=a_second, is_stopped=lambda: time.monotonic() > until)
    context.note(
        "retry dead",
        tenant=where.tenant,
        subject=group,
        details={"sent": done.sent, "passed": done.passed, "refused": sum(done.refused.values())},
    )
    return RedirectResponse(context.path("dead", query=context.of_tenant(context.tenant)), status_code=303)


RULES = (
    Rule("/dead", "dead", dead, Role.VIEWER),
    Rule("/dead/retry", "retry_dead", retry_dead, Role.OPERATOR, methods=POST),
)
