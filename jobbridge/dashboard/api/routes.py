"""All routes of the API."""

from __future__ import annotations

from jobbridge.core.access import Role
from jobbridge.dashboard.api import describing, jobs, links, queues, schedules, sending, waiting, workers
from jobbridge.dashboard.api.rules import PREFIX
from jobbridge.dashboard.live.stream import event_stream
from jobbridge.dashboard.visits import Rule

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
