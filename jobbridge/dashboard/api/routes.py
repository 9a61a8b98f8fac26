"""All routes of the API."""

from __future__ import annotations

from jobbridge.dashboard.api import jobs, sending, waiting

RULES = (*jobs.RULES, *sending.RULES, *waiting.RULES)
