"""How a message reaches an engine other than the broker; and saying that it went to the broker for want of that."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Protocol

from jobbridge.core.enqueue import Outcome
from jobbridge.core.envelope import HEADER, Envelope
from jobbridge.core.events import Accepted, Recorded
from jobbridge.core.keys import Engine, JobKey
from jobbridge.core.light import LIGHT, external_id_of, is_light
from jobbridge.errors import EngineUnavailable, UnsupportedOption
from jobbridge.store.jobs import steps

if TYPE_CHECKING:
    from jobbridge.app.application import Celery
    from jobbridge.app.options import JobOptions
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

    def accept(self, accepted: Accepted) -> None:
        """Have the row say that the engine has it, now or within a moment. Trouble is logged: its start says so."""
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


# -- light delivery


def chosen_light(app: Celery, task: Any, options: JobOptions, engine: Engine, *, is_own: bool) -> bool:
    """Tell whether a job goes without a workflow: as its sender, the attempt before, its task or the settings say.

    Args:
        task: The task if it is known here.
        is_own: The job that runs here sends itself again.

    Raises:
        UnsupportedOption: Its sender says so, and it goes to an engine that has no workflows.
    """
    chosen = options.temporal_light
    if chosen and engine is not Engine.TEMPORAL:
        raise UnsupportedOption(
            f"temporal_light is for jobs on temporal, and this one goes to {engine.value}.",
            hint="Leave it out, or declare it on the task, where it counts on temporal alone.",
        )
    if engine is not Engine.TEMPORAL:
        return False
    if chosen is None and is_own:
        running = app.current_worker_task
        header = getattr(getattr(running, "request", None), HEADER, None)
        return is_light({HEADER: header})
    if chosen is None:
        chosen = getattr(task, "temporal_light", None)
    return app.settings.temporal_light if chosen is None else bool(chosen)


def address(headers: dict[str, Any], told: dict[str, Any], task_id: str, *, is_light: bool) -> str:
    """Write into the message whose job it is, and by which delivery; gives how its engine will know it."""
    headers[HEADER] = {**told, LIGHT: True} if is_light else told
    return external_id_of(task_id) if is_light else task_id
