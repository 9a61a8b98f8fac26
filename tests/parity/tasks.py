"""Tasks and handlers that the parity tests run on both engines."""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from celery import Task, current_task, shared_task
from celery.exceptions import Ignore, Reject, SoftTimeLimitExceeded
from pydantic import BaseModel

from jobbridge import Celery, JobContext, RetryPolicy, job


def make_app(**options: Any) -> Celery:
    app = Celery("parity", **options)
    app.conf.accept_content = ["json", "pickle", "yaml", "msgpack"]
    if within := os.environ.get("PARITY_STOP_WITHIN"):
        app.conf.jobbridge_worker_stop_within = float(within)
    return app


def folder() -> Path:
    """Where the running job leaves notes for its test: one folder for all jobs of one root."""
    path = Path(os.environ["PARITY_FOLDER"]) / str(current_task.request.root_id)
    path.mkdir(exist_ok=True)
    return path


def note(name: str, text: str = "") -> int:
    """Append a line to a file that the test reads; give the number of lines."""
    path = folder() / name
    with path.open("a") as file:
        file.write(f"{text}\n")
    return len(path.read_text().splitlines())


def wait_for_file(name: str, *, timeout: float = 240.0) -> None:
    path = folder() / name
    deadline = time.monotonic() + timeout
    while not path.exists():
        if time.monotonic() > deadline:
            raise TimeoutError(name)
        threading.Event().wait(0.02)


@shared_task(name="parity.add")
def add(x: int, y: int) -> int:
    note("add", f"{x}+{y}")
    return x + y


@shared_task(name="parity.total")
def total(numbers: list[int]) -> int:
    return sum(numbers)


@shared_task(name="parity.fail")
def fail(text: str) -> None:
    raise ValueError(text)


@shared_task(name="parity.no_result", ignore_result=True)
def no_result() -> str:
    return "nobody reads this"


@shared_task(name="parity.retry_until", bind=True, max_retries=5)
def retry_until(self: Any, failures: int) -> int:
    tries = note("retry_until")
    if tries <= failures:
        raise self.retry(exc=ConnectionError(f"try {tries}"), countdown=0.2)
    return tries


@shared_task(
    name="parity.auto_retry",
    autoretry_for=(ConnectionError,),
    max_retries=3,
    retry_backoff=False,
    default_retry_delay=0,
)
def auto_retry(failures: int) -> int:
    tries = note("auto_retry")
    if tries <= failures:
        raise ConnectionError(f"try {tries}")
    return tries


@shared_task(name="parity.replaced", bind=True)
def replaced(self: Any, x: int) -> Any:
    return self.replace(add.s(x, 1))


@shared_task(name="parity.replaced_by_chain", bind=True)
def replaced_by_chain(self: Any, x: int) -> Any:
    return self.replace(add.s(x, 1) | add.s(10))


@shared_task(name="parity.ignored")
def ignored() -> None:
    raise Ignore


@shared_task(name="parity.requeue_once", acks_late=True)
def requeue_once() -> int:
    tries = note("requeue_once")
    if tries == 1:
        raise Reject("not yet", requeue=True)
    return tries


@shared_task(name="parity.rejected")
def rejected() -> None:
    raise Reject("no", requeue=False)


@shared_task(name="parity.takes")
def takes(seconds: float) -> int:
    runs = note("takes")
    threading.Event().wait(seconds)
    return runs


@shared_task(name="parity.hold", bind=True)
def hold(self: Any, name: str = "go") -> int:
    """Run until the test lets it go; notes its process, so that the test can kill it."""
    note("hold.pids", str(os.getpid()))
    wait_for_file(name)
    return note("hold.done")


@shared_task(name="parity.hold_early", acks_late=False)
def hold_early() -> int:
    note("hold.pids")
    wait_for_file("go")
    return note("hold.done")


@shared_task(name="parity.slow", soft_time_limit=1, time_limit=2)
def slow() -> None:
    threading.Event().wait(60)


@shared_task(name="parity.kills_itself", bind=True)
def kills_itself(self: Any, times: int) -> int:
    tries = note("kills_itself")
    if tries <= times:
        os.kill(os.getpid(), 9)
    return tries


class Greeting(BaseModel):
    name: str
    times: int = 1


@job("parity.greet", tenant_required=True)
def greet(ctx: JobContext, data: Greeting) -> dict[str, Any]:
    """Greet somebody."""
    for number in range(data.times):
        ctx.progress(number + 1, data.times, f"greeting {number + 1}")
    return {
        "greeting": f"Hello {data.name}",
        "tenant": ctx.tenant_id,
        "attempt": ctx.attempt,
        "engine": ctx.engine,
    }


@job("parity.fails_twice", retry=RetryPolicy(max_attempts=3, first=timedelta(milliseconds=200)))
def fails_twice(ctx: JobContext, data: dict[str, Any]) -> int:
    tries = note("fails_twice")
    if tries <= 2:
        raise ConnectionError(f"try {tries}")
    return ctx.attempt


@job("parity.always_fails", retry=RetryPolicy(max_attempts=2, first=timedelta(milliseconds=100)))
def always_fails(ctx: JobContext, data: dict[str, Any]) -> None:
    raise RuntimeError(f"attempt {note('always_fails')}")


class HopelessError(Exception):
    pass


@job("parity.hopeless", retry=RetryPolicy(max_attempts=5, non_retryable=(HopelessError,)))
def hopeless(ctx: JobContext, data: dict[str, Any]) -> None:
    note("hopeless")
    raise HopelessError("no retry can help")


@job(
    "parity.too_slow",
    timeout=timedelta(seconds=1),
    retry=RetryPolicy(max_attempts=2, first=timedelta(milliseconds=100)),
)
def too_slow(ctx: JobContext, data: dict[str, Any]) -> int:
    tries = note("too_slow")
    if tries == 1:
        threading.Event().wait(30)
    return tries


@job("parity.steps", retry=RetryPolicy(max_attempts=2, first=timedelta(milliseconds=100)))
def steps(ctx: JobContext, data: dict[str, Any]) -> list[int]:
    results = []
    for key in ("a", "b"):
        with ctx.step("work", key=key) as step:
            if not step.is_done:
                step.result = note(f"step.{key}")
        results.append(step.result)
    if ctx.attempt == 1:
        raise ConnectionError("once more")
    return results


@job("parity.long", retry=RetryPolicy(max_attempts=1))
def long(ctx: JobContext, data: dict[str, Any]) -> None:
    """Work until it is cancelled."""
    note("long.started")
    for number in range(600):
        ctx.progress(number, 600, f"part {number}")
        ctx.check_cancelled()
        threading.Event().wait(0.1)
    note("long.finished")


@job("parity.asynchronous")
async def asynchronous(ctx: JobContext, data: dict[str, Any]) -> str:
    return f"async {data['word']}"


class Hooks(Task):
    """A user's own base class, not derived from the app's."""

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        note("hooks", "before_start")

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        note("hooks", "on_success")

    def on_failure(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        note("hooks", "on_failure")

    def on_retry(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        note("hooks", "on_retry")

    def after_return(
        self, status: str, retval: Any, task_id: str, args: Any, kwargs: Any, einfo: Any
    ) -> None:
        note("hooks", f"after_return {status}")


@shared_task(name="parity.hooked", bind=True, base=Hooks, max_retries=1)
def hooked(self: Any, fails: bool = False) -> str:
    if not fails:
        return "fine"
    raise self.retry(exc=ValueError("no"), countdown=0)


@shared_task(name="parity.custom_state", bind=True)
def custom_state(self: Any) -> str:
    self.update_state(state="HALFWAY", meta={"current": 5, "total": 10})
    note("halfway")
    wait_for_file("go")
    return "whole"


@shared_task(name="parity.who", bind=True)
def who(self: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """Tell what the request says."""
    request = self.request
    return {
        "id": request.id,
        "root_id": request.root_id,
        "parent_id": request.parent_id,
        "retries": request.retries,
        "is_eager": request.is_eager,
        "called_directly": request.called_directly,
        "hostname": request.hostname,
        "queue": request.delivery_info["routing_key"],
        "priority": request.delivery_info["priority"],
        "custom": request.get("custom"),
        "shadow": request.shadow,
        "argsrepr": request.argsrepr,
        "kwargsrepr": request.kwargsrepr,
        "args": list(args),
        "kwargs": kwargs,
    }


@shared_task(name="parity.echo")
def echo(value: Any) -> Any:
    return value


@shared_task(name="parity.record")
def record(*args: Any) -> None:
    note("record", repr(args))


@shared_task(name="parity.errback")
def errback(request: Any, exc: Any, traceback: Any) -> None:
    folder = Path(os.environ["PARITY_FOLDER"]) / str(request.root_id)
    folder.mkdir(exist_ok=True)
    (folder / "errback").write_text(f"{request.id} {exc}")


@shared_task(name="parity.parent", bind=True)
def parent(self: Any, x: int) -> list[str]:
    return [add.delay(x, x).id, add.apply_async((x, 1), countdown=0.1).id]


@shared_task(name="parity.nests", bind=True)
def nests(self: Any, depth: int) -> Any:
    if depth == 0:
        return "bottom"
    return self.replace(nests.s(depth - 1))


@shared_task(name="parity.moves", bind=True)
def moves(self: Any, to: str) -> Any:
    """Go on as another task on another engine."""
    return self.replace(add.s(1, 2).set(engine=to))


@shared_task(name="parity.retry_slowly", bind=True)
def retry_slowly(self: Any) -> None:
    note("retry_slowly")
    raise self.retry(countdown=4)


@shared_task(name="parity.last_of_chain")
def last_of_chain(value: Any) -> str:
    note("last_ran")
    return "last"


@shared_task(name="parity.replaced_and_waits", bind=True)
def replaced_and_waits(self: Any) -> Any:
    """End only when the chain that took this task's place has."""
    try:
        return self.replace(echo.s(1) | last_of_chain.s())
    except Ignore:
        wait_for_file("last_ran", timeout=20)
        raise


@job("parity.fails_until", retry=RetryPolicy(max_attempts=1))
def fails_until(ctx: JobContext, data: dict[str, Any]) -> int:
    """Fail until the test has put a file there; its first step is done once."""
    with ctx.step("first", key="first") as step:
        if not step.is_done:
            step.result = note("once", str(ctx.attempt))
    if not (folder() / data["name"]).exists():
        raise ConnectionError(data["name"])
    return ctx.attempt


@shared_task(name="parity.hold_large", bind=True)
def hold_large(self: Any, text: str, size: int) -> int:
    """As `hold`, with much to be told; if there is a size, it fails with an error of as many characters."""
    note("hold.pids", str(os.getpid()))
    wait_for_file("go")
    if size:
        raise ValueError("x" * size)
    return size


@shared_task(name="parity.busy", soft_time_limit=1, time_limit=2)
def busy(catches: bool = False) -> str:
    """Run for longer than its limits, always in Python."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            for _ in range(1000):
                time.sleep(0.001)
        except SoftTimeLimitExceeded:
            note("soft")
            if not catches:
                return "it was told"
    return "nobody stopped it"


@job(
    "parity.deaf",
    timeout=timedelta(seconds=1),
    retry=RetryPolicy(max_attempts=2, first=timedelta(milliseconds=100)),
)
def deaf(ctx: JobContext, data: dict[str, Any]) -> int:
    """Hear nothing of its soft limit the first time, and be killed at the hard one."""
    tries = note("deaf")
    if tries == 1:
        while True:
            with suppress(SoftTimeLimitExceeded):
                threading.Event().wait(60)
    return tries
