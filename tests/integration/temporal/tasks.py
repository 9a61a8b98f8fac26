"""What the workers of these tests serve: the parity tests' tasks, and some of their own."""

from __future__ import annotations

import threading
from typing import Any

from celery import current_task, shared_task
from celery.exceptions import Reject

from jobbridge import JobContext, RetryPolicy, job
from tests.parity import fan_out_tasks
from tests.parity.tasks import make_app as make_parity_app
from tests.parity.tasks import note, wait_for_file


def make_app(**options: Any) -> Any:
    app = make_parity_app(include=["tests.parity.tasks", fan_out_tasks.__name__, __name__], **options)
    app.conf.task_create_missing_queues = True
    return app


@shared_task(name="temporal.early", acks_late=False)
def early() -> int:
    """Must not run twice."""
    tries = note("started")
    wait_for_file("go")
    return tries


@shared_task(name="temporal.early_retrying", acks_late=False, bind=True)
def early_retrying(self: Any) -> int:
    """Must not run twice by itself, and wants to once."""
    tries = note("started")
    wait_for_file("go")
    if tries == 1:
        raise self.retry(countdown=0)
    return tries


@shared_task(name="temporal.steady", acks_late=True)
def steady() -> int:
    tries = note("started")
    wait_for_file("go")
    note("done")
    return tries


@job("temporal.progressing")
def progressing(ctx: JobContext, data: dict[str, Any]) -> str:
    ctx.progress(25, 100, "a quarter")
    note("started")
    wait_for_file("go")
    return "done"


@job("temporal.reports")
def reports(ctx: JobContext, data: dict[str, Any]) -> None:
    """Say how far it is, so many times, by its context and as Celery's tasks do."""
    for number in range(1, data["times"] + 1):
        ctx.progress(number, 2 * data["times"], f"{number}")
    for number in range(1, data["times"] + 1):
        current_task.update_state(state="PROGRESS", meta={"current": number, "total": 4 * data["times"]})
    note("started")
    wait_for_file("go")


@job("temporal.fans_out", retry=RetryPolicy(max_attempts=1))
def fans_out(ctx: JobContext, data: dict[str, Any]) -> Any:
    items = [{"seconds": 0}] * data["children"]
    return ctx.fan_out("temporal.takes", items, concurrency=50, engine=data["engine"])


@job("temporal.echo")
def echo(ctx: JobContext, data: dict[str, Any]) -> dict[str, Any]:
    return {"data": data, "tenant": ctx.tenant_id}


@job("temporal.takes")
def takes_data(ctx: JobContext, data: dict[str, Any]) -> None:
    threading.Event().wait(data["seconds"])


@shared_task(name="temporal.retries", bind=True, max_retries=None)
def retries(self: Any, times: int, text: str = "") -> int:
    """Return the length of the text, at the last of so many tries."""
    if self.request.retries < times - 1:
        raise self.retry(countdown=0)
    return len(text)


@shared_task(name="temporal.rejects", acks_late=True)
def rejects(times: int, text: str) -> int:
    """Ask to be run again, so many times."""
    if (tries := note("rejects")) < times:
        raise Reject("not yet", requeue=True)
    return tries


@shared_task(name="temporal.fails_with")
def fails_with(size: int) -> None:
    raise ValueError("x" * size)


@shared_task(name="temporal.length")
def length(text: str) -> int:
    return len(text)


@shared_task(name="temporal.large")
def large(size: int) -> str:
    return "x" * size


@shared_task(name="temporal.sends", bind=True)
def sends(self: Any, x: int) -> str:
    """Send another job from inside."""
    return str(self.app.tasks["parity.add"].delay(x, 1).id)


app = make_app()
