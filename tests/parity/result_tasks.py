"""Tasks whose results and states the tests of Celery's states look at."""

from __future__ import annotations

from typing import Any

from celery import Task, shared_task
from celery.exceptions import Ignore

from tests.parity.tasks import note, wait_for_file


@shared_task(name="parity.tracked", bind=True, track_started=True)
def tracked(self: Any) -> str:
    note("tracked", str(self.request.hostname))
    wait_for_file("go")
    return "done"


@shared_task(name="parity.quiet_retry", bind=True, max_retries=3, ignore_result=True)
def quiet_retry(self: Any) -> str:
    if note("quiet_retry") == 1:
        raise self.retry(countdown=1, exc=ValueError("not yet"))
    return "done"


@shared_task(
    name="parity.tells_errors",
    bind=True,
    ignore_result=True,
    store_errors_even_if_ignored=True,
    max_retries=1,
)
def tells_errors(self: Any, end: str) -> str:
    match end:
        case "fail":
            raise ValueError(end)
        case "retry":
            raise self.retry(countdown=300, exc=ValueError("not yet"))
    return end


@shared_task(name="parity.parked", bind=True)
def parked(self: Any) -> None:
    """Store a state of its own, and have it stay: somebody else says how it ended."""
    self.update_state(state="PARKED", meta={"until": "later"})
    raise Ignore


@shared_task(name="parity.retries_after_state", bind=True, max_retries=1)
def retries_after_state(self: Any) -> str:
    if note("retries_after_state") == 1:
        self.update_state(state="HALFWAY", meta={"part": 1})
        raise self.retry(countdown=1, exc=ConnectionError("once more"))
    return "done"


class Extended(Task):
    """Keeps what `result_extended` keeps, for this task alone: the setting is the process's."""

    abstract = True

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        self.app.conf.result_extended = True

    def after_return(
        self, status: str, retval: Any, task_id: str, args: Any, kwargs: Any, einfo: Any
    ) -> None:
        self.app.conf.result_extended = False


@shared_task(name="parity.extended", base=Extended)
def extended(*args: Any, **kwargs: Any) -> str:
    return "extended"


@shared_task(name="parity.done_by_another", bind=True)
def done_by_another(self: Any, other_id: str) -> None:
    """Say of another job that it is done, as celery-batches does: with a request that is none of Celery's."""
    self.backend.mark_as_done(other_id, "by another", request=SimpleRequest(other_id))


class SimpleRequest:
    """As in celery-batches 0.11 (celery_batches/__init__.py)."""

    id = None
    name = None
    args = ()
    kwargs: dict[str, Any] = {}
    delivery_info = None
    hostname = None
    ignore_result = None
    reply_to = None
    correlation_id = None
    request_dict: dict[str, Any] = {}
    chord = None

    def __init__(self, task_id: str) -> None:
        self.id = task_id


@shared_task(name="parity.properties", bind=True)
def properties(self: Any) -> dict[str, Any]:
    return dict(self.request.properties)


@shared_task(name="parity.fails_at_length")
def fails_at_length(megabytes: int) -> None:
    raise ValueError("x" * megabytes * 1024 * 1024 + "end")


@shared_task(name="parity.holds_second", bind=True, max_retries=1)
def holds_second(self: Any) -> str:
    if note("holds_second") == 1:
        raise self.retry(countdown=0, exc=ConnectionError("once more"))
    wait_for_file("go")
    return "done"
