"""Tasks of the tests of what Celery's workers and messages can do besides."""

from __future__ import annotations

import os
import time
from typing import Any

from celery import shared_task

from jobbridge import JobContext, job
from tests.parity.tasks import note, wait_for_file

#: Left out: `setup_logging`, for who receives it has to set up logging itself; `user_preload_options`: there are none;
#: `task_rejected` and `task_internal_error`, which tell of messages that nobody can read and of faults of Celery's own.
SIGNALS = {
    "before_task_publish", "after_task_publish", "task_received", "task_prerun", "task_postrun", "task_success",
    "task_retry", "task_failure", "task_revoked", "task_unknown", "celeryd_init", "celeryd_after_setup",
    "import_modules", "after_setup_logger", "after_setup_task_logger", "worker_init", "worker_before_create_process",
    "worker_process_init", "worker_process_shutdown", "worker_ready", "heartbeat_sent", "worker_shutting_down",
    "worker_shutdown",
}  # fmt: skip


@shared_task(name="parity.limited", rate_limit="2/s")
def limited(number: int) -> int:
    return number


@shared_task(name="parity.pid")
def pid() -> int:
    return os.getpid()


@shared_task(name="parity.stamps", bind=True)
def stamps(self: Any, waits: bool = False) -> Any:
    """Tell its stamps; hold until the test says so, or it is stopped."""
    if waits:
        note("stamps")
        wait_for_file("go")
    return self.request.stamps


@shared_task(name="parity.watched", bind=True, max_retries=1)
def watched(self: Any, how: str) -> str:
    """End in the way that is asked for."""
    if how == "retry" and self.request.retries == 0:
        raise self.retry(countdown=0)
    if how == "failure":
        raise ValueError(how)
    return how


@job("parity.stages")
def stages(ctx: JobContext, data: dict[str, Any]) -> list[int]:
    """Three steps, of which each is made once; gives how often each has been made."""
    results = []
    for name in ("fetch", "render", "mail"):
        with ctx.step(name, key=name) as step:
            if not step.is_done:
                step.result = note(f"stage.{name}")
        results.append(step.result)
    return results


@shared_task(name="parity.spins")
def spins() -> str:
    """Run for long, always in Python, with no limits of its own."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        time.sleep(0.001)
    return "nobody stopped it"
