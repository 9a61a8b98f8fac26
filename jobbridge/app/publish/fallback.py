"""Saying that a job went to the broker because its engine is away: in its steps, and in the log."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from jobbridge.core.keys import Engine, JobKey
from jobbridge.errors import EngineUnavailable
from jobbridge.store.jobs import steps

if TYPE_CHECKING:
    from jobbridge.postgres.caller_connection import DriverConnection

logger = logging.getLogger(__name__)


def note_fallback(connection: DriverConnection, key: JobKey, trouble: EngineUnavailable) -> None:
    """Add it to the job's steps."""
    told = {"from": Engine.TEMPORAL.value, "to": Engine.CELERY.value, "reason": str(trouble)}
    steps.note(connection, key, steps.FALLBACK, told)


def log_fallback(task_id: str, name: str, trouble: EngineUnavailable) -> None:
    """Warn of it."""
    logger.warning(
        "job.fell_back", extra={"job_id": task_id, "type": name, "engine": "celery", "reason": str(trouble)}
    )
