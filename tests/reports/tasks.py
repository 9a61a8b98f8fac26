"""The tasks of the reports: each is what a user's task was, made small."""

from __future__ import annotations

import asyncio
import math
import os
import signal
import threading
from collections.abc import Callable
from typing import Any

from celery import chord, group, shared_task
from celery.exceptions import MaxRetriesExceededError

from tests.parity.tasks import note, wait_for_file


@shared_task(name="reports.identity")
def identity(value: Any = None) -> Any:
    note("identity", str(value))
    return value


@shared_task(name="reports.ignored", ignore_result=True)
def ignored(value: Any = None) -> Any:
    note("ignored", str(value))
    return value


@shared_task(name="reports.fails")
def fails(text: str = "boom") -> None:
    note("fails", text)
    raise ValueError(text)


@shared_task(name="reports.told", bind=True)
def told(self: Any, task_id: str) -> str:
    """Be an error callback that is a job of its own."""
    note("told", task_id)
    return task_id


@shared_task(name="reports.retries", bind=True, max_retries=None)
def retries(self: Any, times: int, countdown: float = 0) -> int:
    """Try again `times` times, which is more than Celery's default."""
    note("retries")
    if self.request.retries < times:
        self.retry(countdown=countdown)
    return int(self.request.retries)


@shared_task(name="reports.retries_with", bind=True, max_retries=5)
def retries_with(self: Any, value: Any, until: int) -> Any:
    """Try again with other arguments."""
    if value < until:
        raise self.retry(args=(value + 1, until), countdown=0)
    return value


@shared_task(
    name="reports.retries_itself",
    bind=True,
    autoretry_for=(Exception,),
    dont_autoretry_for=(KeyError,),
    max_retries=2,
    default_retry_delay=0,
    throws=(KeyError,),
)
def retries_itself(self: Any, expected: bool = False) -> None:
    note("retries_itself", str(self.request.get("tracing")))
    raise KeyError("expected") if expected else ConnectionError("always")


@shared_task(name="reports.retries_at_most", bind=True, max_retries=1)
def retries_at_most(self: Any) -> str:
    try:
        self.retry(countdown=0)
    except MaxRetriesExceededError:
        return "gave up"
    return "never"


class TwoArgumentsError(Exception):
    """Cannot be unpickled: what it is made with is not what it keeps."""

    def __init__(self, message: str, another: Any) -> None:
        super().__init__(message)
        self.another = another


@shared_task(name="reports.raises_two_arguments")
def raises_two_arguments() -> None:
    raise TwoArgumentsError("hello", 12)


@shared_task(name="reports.retries_two_arguments", bind=True, max_retries=1)
def retries_two_arguments(self: Any) -> str:
    if self.request.retries == 0:
        self.retry(exc=TwoArgumentsError("hello", 12), countdown=0)
    return "done"


class Unserializable:
    """Neither JSON nor pickle knows it."""

    def __init__(self) -> None:
        self.function: Callable[[], None] = lambda: None


@shared_task(name="reports.returns_unserializable")
def returns_unserializable() -> Any:
    return Unserializable()


@shared_task(name="reports.raises_unserializable")
def raises_unserializable() -> None:
    raise ValueError(Unserializable(), ValueError)


class Rude(Exception):
    """Cannot be shown."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


class Unshown(float):
    """A number that cannot be shown."""

    def __repr__(self) -> str:
        raise RuntimeError("no text")

    __str__ = __repr__


def _circular() -> Any:
    values: list[Any] = []
    values.append(values)
    return values


def _deep(levels: int) -> Any:
    value: Any = "bottom"
    for _ in range(levels):
        value = [value]
    return value


#: Results that no serializer takes.
IMPOSSIBLE: dict[str, Callable[[], Any]] = {
    "rude": Rude,
    "circular": _circular,
    "deep": lambda: _deep(100_000),
    "generator": lambda: (each for each in range(3)),
    "tuples as keys": lambda: {(1, 2): 3},
}


@shared_task(name="reports.returns_impossible")
def returns_impossible(kind: str) -> Any:
    note("returns_impossible")
    return IMPOSSIBLE[kind]()


@shared_task(name="reports.raises_rude")
def raises_rude() -> None:
    note("raises_rude")
    raise Rude


@shared_task(name="reports.recurses")
def recurses() -> None:
    recurses()


@shared_task(name="reports.sleeps")
def sleeps(seconds: float) -> str:
    note("sleeps")
    threading.Event().wait(seconds)
    return "slept"


@shared_task(name="reports.expires_on_retry", bind=True, max_retries=3)
def expires_on_retry(self: Any) -> str:
    note("expires_on_retry", str(self.request.expires))
    if self.request.retries == 0:
        self.retry(countdown=2)
    return "too late"


#: What a BaseException that is no Exception can be.
BASES: dict[str, Callable[[], BaseException]] = {
    "cancelled": lambda: asyncio.CancelledError("cancelled"),
    "base": lambda: BaseException("base"),
    "generator": GeneratorExit,
    "group": lambda: ExceptionGroup("two", [ValueError("one"), KeyError("two")]),
    "base group": lambda: BaseExceptionGroup("two", [asyncio.CancelledError(), ValueError("one")]),
}


@shared_task(name="reports.raises")
def raises(kind: str) -> None:
    note("raises")
    raise BASES[kind]()


#: Values that Python's json writes and Postgres' does not read, or reads as another.
ODD: dict[str, Any] = {
    "nan": math.nan,
    "infinite": -math.inf,
    "deep": {"values": [1.5, math.nan], "by": {"x": math.inf}},
    "surrogate": "half \ud800 a character",
    "nul": {"a\x00b": "c\x00d"},
    "numbers as keys": {1: "one"},
    "large": 10**400,
    "bytes": b"\x00\xff",
}


@shared_task(name="reports.returns")
def returns(kind: str) -> Any:
    return ODD[kind]


@shared_task(name="reports.says")
def says(kind: str, is_plain: bool = False) -> None:
    """Fail with an odd value, in the error's text or among its arguments."""
    text = f"it was {ODD[kind]!s}"
    raise ValueError(text) if is_plain else ValueError(text, ODD[kind])


@shared_task(name="reports.progresses", bind=True)
def progresses(self: Any, kind: str) -> str:
    self.update_state(state="PROGRESS", meta={"value": ODD[kind]})
    note("progresses")
    wait_for_file("go")
    return "done"


@shared_task(name="reports.killed_once")
def killed_once() -> int:
    """As by the system, when there is no memory left."""
    if (times := note("killed_once")) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return times


@shared_task(name="reports.headers", bind=True, max_retries=1)
def headers(self: Any) -> Any:
    if self.request.retries == 0:
        self.retry(countdown=0)
    return [self.request.get("tracing"), self.request.delivery_info["priority"]]


@shared_task(name="reports.waits")
def waits(name: str = "go") -> str:
    note("waits")
    wait_for_file(name)
    return "waited"


@shared_task(name="reports.adds_chord", bind=True)
def adds_chord(self: Any, number: int) -> Any:
    return self.replace(chord([identity.s(each) for each in range(number)], identity.s()))


@shared_task(name="reports.adds_group", bind=True)
def adds_group(self: Any, values: Any) -> Any:
    return self.replace(group(identity.s(each) for each in values))
