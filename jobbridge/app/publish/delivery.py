"""How a message reaches an engine other than the broker; and saying that it went to the broker for want of that."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Protocol

from jobbridge.core.enqueue import Outcome
from jobbridge.core.envelope import Envelope
from jobbridge.core.events import Accepted, Recorded
from jobbridge.core.keys import Engine, JobKey
from jobbridge.errors import EngineUnavailable
from jobbridge.store.jobs import steps

if TYPE_CHECKING:
    from jobbridge.postgres.caller_connection import DriverConnection

logger = logging.getLogger(__name__)


class Delivery(Protocol):
    """The way to one engine. Safe to call from several threads; never used in a forked pool child."""

    def deliver(self, envelope: Envelope) -> Accepted:
        """Hand it over; handing over twice starts once.

        Raises:
            EngineUnavailable: It could not be reached; `certainly_not_started` tells what is known.
        """
        ...

    def prepare(self, *, asks: bool) -> None:
        """Make sure, before a job is recorded, that its settings can work; `asks`: it may also be asked.

        Raises:
            ConfigurationError: One cannot.
        """
        ...

    def check(self) -> None:
        """Ask whether it is there.

        Raises:
            EngineUnavailable: It cannot be reached, or could not be a moment ago.
        """
        ...

    def known_failure(self) -> EngineUnavailable | None:
        """Give the failure of a moment ago, for as long as it is not worth while to try again. Asks nobody."""
        ...

    def close(self) -> None:
        """Close its connections."""
        ...

    def cancel(self, task_id: str, *, reason: str | None, cancelled_by: str | None) -> bool:
        """Ask the engine to stop it; False when it knows no such running job.

        Raises:
            EngineUnavailable: It could not be reached.
        """
        ...


def note_fallback(connection: DriverConnection, key: JobKey, trouble: EngineUnavailable) -> None:
    """Add it to the job's steps."""
    told = {"from": Engine.TEMPORAL.value, "to": Engine.CELERY.value, "reason": str(trouble)}
    steps.note(connection, key, steps.FALLBACK, told)


def log_fallback(task_id: str, name: str, trouble: EngineUnavailable) -> None:
    """Warn of it."""
    logger.warning(
        "job.fell_back", extra={"job_id": task_id, "type": name, "engine": "celery", "reason": str(trouble)}
    )


def log_duplicate(key: JobKey, reason: str | None) -> None:
    """Warn that it was not sent, as there is such a job already."""
    logger.warning(
        "job.deduplicated", extra={"job_id": str(key.job_id), "tenant": key.tenant, "reason": reason}
    )


def outcome_of(key: JobKey, recorded: Recorded) -> Outcome:
    """Say whether a job without a singleton key was sent by what was recorded; if not, that is logged."""
    if recorded.applied or recorded.outcome == "repeated":  # a first try whose answer was lost counts
        return Outcome.CREATED
    log_duplicate(key, recorded.reason)
    return Outcome.DEDUPLICATED
