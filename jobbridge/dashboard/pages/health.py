"""What `jobbridge doctor` finds, bad things first.

Nobody waits for what may be away, and only a moment for what the tables tell. Until the whole is there, the page asks
for it each second, or has a link that does.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from starlette.responses import RedirectResponse, Response

from jobbridge.core.access import Role
from jobbridge.dashboard.access.request_context import RequestContext, Rule
from jobbridge.dashboard.findings_cache import Report
from jobbridge.diagnosis.findings import Check

#: What was found so long ago is not shown as how it is.
_OLD = timedelta(minutes=5)
#: In which groups findings are shown, in this order.
_GROUPS = (
    ("Engines", ("edition", "temporal", "fallback", "drift")),
    ("Database and broker", ("database", "broker")),
    ("Workers and queues", ("workers", "tasks", "handlers", "delivery", "held jobs", "paused queues")),
    ("Schedules", ("schedules",)),
    ("Services", ("services",)),
)


def health(context: RequestContext) -> Response:
    """What `jobbridge doctor` finds."""
    check_up = context.dashboard.check_up
    if context.request.query_params.get("again"):
        check_up.whole.forget()
        return RedirectResponse(context.path("health"), status_code=303)
    whole = check_up.whole.last
    if whole is not None and datetime.now(UTC) - whole.looked_at > _OLD:
        whole = None
    if check_up.whole.is_due:
        check_up.whole.begin()
    report = whole or check_up.quick.soon()
    return context.dashboard.page(
        context,
        "health.html",
        report=report,
        groups=[] if report is None else _grouped(report),
        is_whole=whole is not None,
        is_looking=whole is None or check_up.whole.is_under_way,
    )


def _grouped(report: Report) -> Sequence[tuple[str, Sequence[Check]]]:
    """Give what is good, in groups."""
    known = {name for _, names in _GROUPS for name in names}
    others = tuple(check.name for check in report.good if check.name not in known)
    groups = [
        (title, [check for check in report.good if check.name in names])
        for title, names in (*_GROUPS, ("Others", others))
    ]
    return [group for group in groups if group[1]]


RULES = (Rule("/health", "health", health, Role.OPERATOR, is_global=True),)
