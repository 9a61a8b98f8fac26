"""All routes of the API."""

from __future__ import annotations

from jobbridge.core.access import Role
from jobbridge.dashboard.access.request_context import Rule
from jobbridge.dashboard.api import enqueue as sending
from jobbridge.dashboard.api import jobs, links, queues, schedules, workers
from jobbridge.dashboard.api import long_poll as waiting
from jobbridge.dashboard.api import openapi as describing
from jobbridge.dashboard.api.rules import PREFIX
from jobbridge.dashboard.live.stream import event_stream

RULES = (
    Rule(
        path=f"{PREFIX}/events",
        name="api_events",
        endpoint=event_stream,
        needs=Role.VIEWER,
        is_api=True,
        is_stream=True,
    ),
    *jobs.RULES, *sending.RULES, *waiting.RULES, *links.RULES, *schedules.RULES, *workers.RULES, *queues.RULES,
    *describing.RULES,
)  # fmt: skip
