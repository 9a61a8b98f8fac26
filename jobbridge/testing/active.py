"""The functions of the kit for the test that is going on, whatever fixture it has taken."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from typing import Any

from jobbridge.testing.engines import active
from jobbridge.testing.records import Job


def assert_enqueued(task: Any = None, **expected: Any) -> list[Job]:
    """Make sure that such a job was enqueued; see `Jobs.assert_enqueued`."""
    return active().assert_enqueued(task, **expected)


def refute_enqueued(task: Any = None, **expected: Any) -> None:
    """Make sure that no such job was enqueued; see `Jobs.refute_enqueued`."""
    active().refute_enqueued(task, **expected)


def drain(**options: Any) -> Counter[str]:
    """Have all that is due run; see `Jobs.drain`."""
    return active().drain(**options)


def fail_next(task: Any, error: BaseException | type[BaseException], *, times: int = 1) -> None:
    """Have the next executions of a task raise `error`; see `Jobs.fail_next`."""
    active().fail_next(task, error, times=times)


class _Clock:
    """The clock of the test that is going on."""

    @property
    def ahead(self) -> timedelta:
        return active().clock.ahead

    def now(self) -> datetime:
        return active().clock.now()

    def travel(self, to: str | timedelta | datetime, **options: Any) -> None:
        """Go on in time; see `VirtualClock.travel`."""
        active().clock.travel(to, **options)


clock = _Clock()
