"""One queue: what waits there now, who serves it, whether it is paused, and how it went before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote

from starlette.responses import Response

from jobbridge.core.access import Role
from jobbridge.dashboard.access.request_context import RequestContext, Rule, storable
from jobbridge.dashboard.views import charts
from jobbridge.diagnosis.queues import COUNTED, look_at, unknown_pauses
from jobbridge.store.counts.flow import Span
from jobbridge.store.monitor.queue_history import MOST, EndedJobs, queue_history

_HOURS = 24
_ACTIONS = ("pause queue", "resume queue")
_ACTIONS_SHOWN = 50


@dataclass(frozen=True, kw_only=True, slots=True)
class Hour:
    """What ended within an hour that begins then; None: nothing did."""

    at: datetime
    ended: EndedJobs | None


def queue(context: RequestContext) -> Response:
    """The queue of the address; one that nothing is known of is a name that nobody uses."""
    name = storable(str(context.request.path_params["queue"]))
    alive = context.app.workers.alive()
    found, problem = look_at(context.app, alive, name)
    begin = Span.HOUR.begin(datetime.now(UTC)) - (_HOURS - 1) * Span.HOUR.length
    history = queue_history(context.app.database, name, since=begin)
    known = dict(history.hours)
    hours = [
        Hour(at=at, ended=known.get(at))
        for at in (begin + place * Span.HOUR.length for place in range(_HOURS))
    ]
    return context.dashboard.page(
        context,
        "queue.html",
        queue=found,
        unknown=unknown_pauses(context.app, alive, [found]).get(name),
        problem=problem,
        counted=COUNTED,
        here=queue_path(context, name),
        history=history,
        read=MOST,
        hours=hours,
        chart=_chart(hours),
        actions=context.dashboard.access.actions_on(name, _ACTIONS, limit=_ACTIONS_SHOWN),
        may_act=context.principal.may(Role.OPERATOR),
    )


def queue_path(context: RequestContext, name: str) -> str:
    """Give the address of a queue's page; of a name that cannot be a part of a path, that of its jobs."""
    if not name or "/" in name or name in {".", ".."}:
        return context.path("jobs", query={"queue": name})
    return context.path("queue", queue=quote(name, safe=""))


def _chart(hours: Sequence[Hour]) -> charts.Chart:
    return charts.columns(
        [
            (kind, [getattr(hour.ended, kind) if hour.ended else 0 for hour in hours])
            for kind in ("completed", "other", "failed")
        ]
    )


RULES = (Rule("/queues/{queue}", "queue", queue, Role.VIEWER, is_global=True),)
