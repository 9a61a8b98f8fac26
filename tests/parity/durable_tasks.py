"""Tasks and handlers of the tests of durable jobs."""

from __future__ import annotations

import os
import signal
from datetime import UTC, datetime, timedelta
from typing import Any

from celery import shared_task

from jobbridge import TIMED_OUT, JobContext, RetryPolicy, Snooze, current_job, job
from tests.parity.tasks import note, wait_for_file


@job("parity.durable.sleeps", timeout=None)
def sleeps(ctx: JobContext, data: dict[str, Any]) -> dict[str, Any]:
    """Make a step, sleep, and make another."""
    starts = note("start", str(ctx.attempt))
    first = ctx.run("first", note, "first")
    try:
        ctx.sleep(data["seconds"])
    except Exception as error:
        note("caught", repr(error))
        raise
    finally:
        note("finally")
    second = ctx.run("second", note, "second")
    return {"starts": starts, "first": first, "second": second, "attempt": ctx.attempt}


@job("parity.durable.until", timeout=None)
def until(ctx: JobContext, data: dict[str, Any]) -> str:
    at = ctx.run("when", lambda: datetime.now(UTC) + timedelta(seconds=data["seconds"]))
    ctx.sleep_until(at)
    return "late" if datetime.now(UTC) >= at - timedelta(milliseconds=50) else "early"


@job("parity.durable.waits", timeout=None)
def waits(ctx: JobContext, data: dict[str, Any]) -> Any:
    """Wait for as many events as are asked for."""
    note("start", str(ctx.attempt))
    if data.get("first"):
        wait_for_file(data["first"])
    got = [
        ctx.wait_for("approval", timeout=data.get("timeout"), key=data.get("key"))
        for _ in range(data.get("events", 1))
    ]
    return ["timed out" if value is TIMED_OUT else value for value in got]


@job("parity.durable.flaky", retry=RetryPolicy(max_attempts=3, first=timedelta(0)))
def flaky(ctx: JobContext, data: dict[str, Any]) -> dict[str, Any]:
    """Fail within a step that is tried again, and then as a whole."""

    def make() -> int:
        tries = note("make")
        if tries < 3:
            raise ValueError(f"try {tries}")
        return tries

    made = ctx.run("make", make, retry=RetryPolicy(max_attempts=3, first=timedelta(0)))
    attempts = note("attempt")
    if attempts == 1:
        raise OSError("the rest fails once")
    return {"made": made, "attempts": attempts}


@job("parity.durable.adds", timeout=None)
def adds(ctx: JobContext, data: dict[str, Any]) -> int:
    if data.get("fails"):
        raise ValueError(data["fails"])
    if data.get("waits"):
        wait_for_file(data["waits"])
    note("adds", str(data["x"]))
    return int(data["x"]) + 1


@job("parity.durable.calls", timeout=None, retry=RetryPolicy(max_attempts=1))
def calls(ctx: JobContext, data: dict[str, Any]) -> Any:
    """Call one job, then several."""
    note("start")
    one = ctx.call(adds, {"x": 1})
    more = ctx.gather(*(adds.s({"x": number, **data.get("options", {})}) for number in range(one, one + 3)))
    plain = ctx.call("parity.add", 3, 4)
    return [one, more, plain]


@job("parity.durable.calls_failing", timeout=None, retry=RetryPolicy(max_attempts=1))
def calls_failing(ctx: JobContext, data: dict[str, Any]) -> Any:
    try:
        ctx.gather(adds.s({"x": 1}), adds.s({"x": 2, "fails": "no"}), adds.s({"x": 3}))
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


@job("parity.durable.calls_waiting", timeout=None, retry=RetryPolicy(max_attempts=1))
def calls_waiting(ctx: JobContext, data: dict[str, Any]) -> Any:
    try:
        return ctx.call(waits, {})
    except Exception as error:
        if data.get("raises"):
            raise
        return f"{type(error).__name__}: {error}"


@job("parity.durable.versions", timeout=None, retry=RetryPolicy(max_attempts=3, first=timedelta(0)))
def versions(ctx: JobContext, data: dict[str, Any]) -> Any:
    """Behave as its former self until the test has it changed."""
    is_new = note("start") > 1 or data.get("is_new")
    if is_new and data.get("begins"):
        ctx.run("added at the beginning", note, "added")
    number = ctx.version("pricing", 2) if is_new else None
    if not (is_new and data.get("leaves_out")):
        ctx.run("price", note, "price")
    if is_new and data.get("adds"):
        ctx.run("added before the sleep", note, "added")
    ctx.sleep(1.5)
    return [number, ctx.version("later", 3)]


@job("parity.durable.saga", timeout=None, retry=RetryPolicy(max_attempts=2, first=timedelta(0)))
def saga(ctx: JobContext, data: dict[str, Any]) -> str:
    note("start")
    for name in ("flight", "hotel", "car"):
        ctx.run(name, note, name)
        ctx.on_failure(undo, name)
    ctx.on_failure("parity.durable.undo_task", "all")
    raise ValueError("no money")


def undo(name: str) -> None:
    note("undone", name)


@shared_task(name="parity.durable.undo_task")
def undo_task(name: str) -> None:
    note("undone", name)


@job("parity.durable.snoozes", timeout=None, retry=RetryPolicy(max_attempts=1))
def snoozes(ctx: JobContext, data: dict[str, Any]) -> list[int]:
    starts = note("start")
    if starts < 3:
        raise Snooze(data.get("seconds", 0.5), reason="not yet")
    return [starts, ctx.attempt]


@job("parity.durable.awaits", timeout=None)
async def awaits(ctx: JobContext, data: dict[str, Any]) -> Any:
    """Do all of it in a coroutine."""
    note("start")

    async def made() -> int:
        return note("made")

    first = await ctx.run("made", made)
    await ctx.sleep(1.2)
    payload = await ctx.wait_for("approval", timeout=60)
    called = await ctx.call(adds, {"x": 5})
    version = await ctx.version("v", 1)
    return [first, payload, called, version, note("end")]


@shared_task(name="parity.durable.plain", bind=True, autoretry_for=(Exception,))
def plain(self: Any) -> list[Any]:
    """No handler, and durable all the same."""
    ctx = current_job()
    note("start")
    first = ctx.run("first", note, "first", key="once")
    assert ctx.run("first", note, "first", key="once") == first
    ctx.sleep(1.2)
    return [first, ctx.name, ctx.attempt]


@job("parity.durable.dies", timeout=None, retry=RetryPolicy(max_attempts=1))
def dies(ctx: JobContext, data: dict[str, Any]) -> dict[str, int]:
    """Sleep, wait or call between two steps, when the test says so; or have its process die in a step of its own."""
    ctx.run("before", note, "before")
    if data["how"] == "step":
        ctx.run("deadly", die_once)
    note("ready")
    wait_for_file("go")
    match data["how"]:
        case "sleep":
            ctx.sleep(data.get("seconds", 1))
        case "event":
            ctx.wait_for("approval")
        case "call":
            ctx.call(adds, {"x": 1})
        case "undo":
            for name in ("first", "second", "third"):
                ctx.on_failure(undo_and_die, name)
            raise ValueError("undo it")
    ctx.run("after", note, "after")
    return {"attempt": ctx.attempt}


def die_once() -> None:
    if note("deadly") == 1:
        os.kill(os.getpid(), signal.SIGKILL)


def undo_and_die(name: str) -> None:
    note("undone", name)
    if name == "second":
        die_once()


@shared_task(name="parity.durable.naps")
def naps(value: int) -> int:
    current_job().sleep(1.2)
    return value
