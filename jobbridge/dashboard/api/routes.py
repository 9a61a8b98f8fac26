"""All routes of the API."""

from __future__ import annotations

from jobbridge.core.access import Role
from jobbridge.dashboard.access.request_context import Rule
from jobbridge.dashboard.api import (
    batches,
    dead,
    enqueue,
    events,
    fleet_rules,
    jobs,
    links,
    long_poll,
    openapi,
    queues,
    schedules,
    workers,
)
from jobbridge.dashboard.api.rules import PREFIX
from jobbridge.dashboard.live.stream import event_stream

RULES = (
    Rule(f"{PREFIX}/events", "api_events", event_stream, Role.VIEWER, is_api=True, is_stream=True),
    *jobs.RULES, *events.RULES, *enqueue.RULES, *long_poll.RULES, *links.RULES, *schedules.RULES, *workers.RULES,
    *queues.RULES, *batches.RULES, *dead.RULES, *fleet_rules.RULES, *openapi.RULES,
)  # fmt: skip
