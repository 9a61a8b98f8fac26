"""Durable calls of a job: how one is known, and what suspends an attempt. See docs/decisions/0032-durable-jobs.md."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from jobbridge.core.status import JobStatus

Json = Any  # what json.loads returns

#: In the metadata of a step: which kind of durable call it records. Only such steps are given to a handler again.
DURABLE: Final = "durable"
#: There too: by what the call is known.
CALL: Final = "call"
#: Characters of an event's, a step's or a version's name, and of a key.
NAME_LIMIT: Final = 255
#: The header of a message by which a job goes on: the undo steps of a saga are to be made.
UNDO_HEADER: Final = "jobbridge_undo"


class Kind(StrEnum):
    """What a handler calls."""

    RUN = "run"
    SLEEP = "sleep"
    EVENT = "event"
    CALL = "call"
    VERSION = "version"
    UNDO = "undo"  # what is to be done should the job fail
    FAILURE = "failure"  # that it has failed, and with what


class TimedOut:
    """The value of `TIMED_OUT`: false, and the same wherever it is unpickled."""

    _only: TimedOut | None = None

    def __new__(cls) -> TimedOut:
        if cls._only is None:
            cls._only = super().__new__(cls)
        return cls._only

    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        return "TIMED_OUT"

    def __reduce__(self) -> str:
        return "TIMED_OUT"


#: What `wait_for` gives when nothing came in time.
TIMED_OUT: Final = TimedOut()


class Suspended(BaseException):
    """Ends an attempt whose job sleeps or waits. Let it pass: `except Exception` does, and `finally` runs.

    Attributes:
        until: When the job goes on at the latest; None: when it is woken.
        wait: What it waits for; None: for the time alone.
        steps: What is recorded with it.
        called: The jobs that are sent with it.
        undoes: It goes on with the undo steps.
        reason: For people.
    """

    def __init__(
        self,
        text: str = "The job is suspended.",
        *,
        until: datetime | None = None,
        wait: Wait | None = None,
        steps: Sequence[NewStep] = (),
        reason: str | None = None,
        undoes: bool = False,
    ) -> None:
        super().__init__(text)
        self.until = until
        self.wait = wait
        self.steps = tuple(steps)
        self.reason = reason
        self.undoes = undoes
        self.called: Sequence[Any] = ()


class Changed(BaseException):
    """Ends an attempt whose handler does not fit what its job recorded: nothing may go on as if it did.

    Attributes:
        error: What the job fails with.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class Snooze(Suspended):
    """Raise it to have the job run again later, from its top; no attempt is counted.

        raise Snooze(60)
        raise Snooze(timedelta(hours=1), reason="The bank is closed.")

    Args:
        delay: From now; seconds, or a timedelta.
        reason: For people.

    Raises:
        ValueError: The delay is negative.
    """

    def __init__(self, delay: float | timedelta, reason: str | None = None) -> None:
        self.delay = duration_of(delay, "Snooze")
        super().__init__(reason or f"Snoozed for {self.delay}.", reason=reason)


@dataclass(frozen=True, kw_only=True, slots=True)
class NewStep:
    """A step that a suspension opens, or has made before.

    Attributes:
        kind: The call's.
        call: By what it is known.
        name: What is shown.
        key: The caller's, if any.
        status: `scheduled` (sleeps), `waiting`, or a final one.
        metadata: What more there is to know.
    """

    detail_id: UUID
    kind: Kind
    call: str
    name: str
    key: str | None = None
    status: JobStatus
    result: Json = None
    metadata: dict[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Wait:
    """What a suspended job waits for, besides a time.

    Attributes:
        kind: `event` or `call`.
        name: The event's, or the first called task's.
        key: Under which the event may come, besides the job's own id.
        step: What the event completes.
        children: Jobs that are called.
    """

    kind: Kind
    name: str
    key: str | None = None
    step: UUID
    children: tuple[UUID, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Suspension:
    """How a suspended job's next message is sent.

    Attributes:
        until: It is due then; None: never, or at once if it does not wait.
        waits: It is woken, before that or instead of it.
    """

    until: datetime | None
    waits: bool


def call_id(kind: Kind, name: str, *, key: str | None, occurrence: int) -> str:
    """Give by what a call is known: its kind and name, and its key, or the how many-th of them it is (1-based)."""
    return f"{kind}:{name}:{key}" if key is not None else f"{kind}:{name}#{occurrence}"


def duration_of(value: float | timedelta, what: str) -> timedelta:
    """Give a time span as it is, or of seconds.

    Raises:
        ValueError: It is negative, or no number.
    """
    try:
        span = value if isinstance(value, timedelta) else timedelta(seconds=value)
    except (TypeError, OverflowError, ValueError):
        raise ValueError(f"{what} takes seconds or a timedelta, not {value!r}.") from None
    if span < timedelta(0):
        raise ValueError(f"{what} takes a time span from now on, and {value!r} is negative.")
    return span


def check_name(name: object, what: str) -> None:
    """Refuse what cannot be a name, or a key.

    Raises:
        ValueError: It is no text of 1 to 255 characters without NUL.
    """
    if not isinstance(name, str) or not 1 <= len(name) <= NAME_LIMIT or "\x00" in name:
        raise ValueError(
            f"{what} is {str(name)[:60]!r}: give text of 1 to {NAME_LIMIT} characters without NUL."
        )
