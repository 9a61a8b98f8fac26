"""What a pool's process hands to its parent besides its result: how the job ended, to be written with others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery.app.trace import task_has_custom

from jobbridge.app.execute.together import together
from jobbridge.codec.rows import seal_event
from jobbridge.core.events import Completed, Failed, JobEvent
from jobbridge.store.jobs.batches import Ended

if TYPE_CHECKING:
    from jobbridge.app.execute.claim import Run

#: In a request: that its row was claimed by the parent, (attempt, whether the end may be handed over, and when, by the
#: clock that all processes of a host share: `time.monotonic`).
BEGUN = "jobbridge_begun"
#: What begins so long after its row was claimed looks at it once more: it may be cancelled. Seconds.
LATE = 0.25

_ended: Ended | None = None


def begun_in(request: Any) -> Any:
    """Give what the parent left of the row's claim; None: it left that to this process.

    It is taken out of the headers that Celery sends along with a retry: that has not begun.
    """
    if request.headers:
        request.headers.pop(BEGUN, None)
    return getattr(request, BEGUN, None)


def take() -> Ended | None:
    """Give the end that was put here last, once."""
    global _ended
    ended, _ended = _ended, None
    return ended


def put(run: Run, event: JobEvent, task: Any) -> bool:
    """Leave the end to the parent, if it is one and nothing follows from it; whether that was done.

    What follows (links, the next of a chain, a chord's count, a task's own `on_success`) has to see the end, or is to
    be sent with it.
    """
    global _ended
    if not run.is_carried or run.attempt is None or not isinstance(event, Completed | Failed):
        return False
    if run.follows is not None or together() is not None:
        return False
    request = task.request
    if request.callbacks or request.errbacks or request.chain or request.chord:
        return False
    if any(task_has_custom(task, name) for name in ("on_success", "on_failure", "after_return")):
        return False
    _ended = Ended.of(seal_event(task.app.database.codec, event))
    return True
