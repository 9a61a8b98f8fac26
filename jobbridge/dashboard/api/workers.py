"""Workers, of both engines."""

from __future__ import annotations

from jobbridge.core.access import Role
from jobbridge.dashboard.api.documents.responses import Worker, Workers
from jobbridge.dashboard.api.rules import PREFIX, ApiRule, Asked


def list_workers(context: Asked) -> Workers:
    """Give the worker processes that there are, the oldest first; the dead until their jobs were looked after."""
    return Workers(workers=[Worker.model_validate(row) for row in context.app.workers.all()])


RULES = (
    ApiRule(
        f"{PREFIX}/workers",
        "api_workers",
        list_workers,
        Role.VIEWER,
        is_global=True,
        tag="workers and queues",
    ),
)
