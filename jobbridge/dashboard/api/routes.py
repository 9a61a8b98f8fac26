"""All routes of the API."""

from __future__ import annotations

from jobbridge.dashboard.api import describing, jobs, links, schedules, sending, waiting, workers

RULES = (
    *jobs.RULES, *sending.RULES, *waiting.RULES, *links.RULES, *schedules.RULES, *workers.RULES, *describing.RULES,
)  # fmt: skip
