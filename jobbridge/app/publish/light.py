"""Which jobs go to Temporal without a workflow, and how a message says so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jobbridge.core.envelope import HEADER
from jobbridge.core.keys import Engine
from jobbridge.core.light import LIGHT, external_id_of, is_light
from jobbridge.errors import UnsupportedOption

if TYPE_CHECKING:
    from jobbridge.app.application import Celery
    from jobbridge.app.options import JobOptions


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
