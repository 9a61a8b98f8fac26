"""When a failed attempt is followed by another, and how long after."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryPolicy:
    """How often, how soon, and after which errors not at all.

    Args:
        max_attempts: Attempts in all, the first one included.
        first: Wait before the second attempt.
        factor: Each further wait is that much longer.
        maximum: No wait is longer.
        non_retryable: Errors (and their subclasses) that another attempt cannot cure.
        attempts: By kind of error, instead of `max_attempts`: no attempt follows one that ended with such an error and
            was at least the so many-th of the job, whatever ended those before. Of several classes that an error is of,
            the nearest counts: `{ConnectionError: 10, ValueError: 1}`.
    """

    max_attempts: int = 3
    first: timedelta = timedelta(seconds=1)
    factor: float = 2.0
    maximum: timedelta = timedelta(seconds=30)
    non_retryable: tuple[type[BaseException], ...] = ()
    attempts: Mapping[type[BaseException], int] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if self.max_attempts < 1:
            raise ValueError(
                f"max_attempts is {self.max_attempts}: a job has at least one attempt. Use 1 for no retries."
            )
        for kind, number in self.attempts.items():
            if not (isinstance(kind, type) and issubclass(kind, BaseException)):
                raise ValueError(f"attempts has {kind!r}, which is no class of errors.")
            if number < 1:
                raise ValueError(
                    f"attempts gives {kind.__name__} {number}: a job has at least one. Use 1 for no retries."
                )
        object.__setattr__(self, "attempts", dict(self.attempts))
        if self.first < timedelta(0) or self.maximum < timedelta(0):
            raise ValueError("A wait between attempts cannot be negative: check first and maximum.")
        if self.factor < 1.0:
            raise ValueError(f"factor is {self.factor}: waits must not shrink. Use 1.0 for equal waits.")

    def allows_another(self, error: BaseException, attempt: int) -> bool:
        """Tell whether an attempt follows number `attempt` (1-based), which ended with `error`."""
        return attempt < self.attempts_for(error) and not isinstance(error, self.non_retryable)

    def attempts_for(self, error: BaseException) -> int:
        """Give how many attempts a job has whose last one ended with `error`."""
        known = (kind for kind in type(error).__mro__ if kind in self.attempts)
        return next((self.attempts[kind] for kind in known), self.max_attempts)

    @property
    def most_attempts(self) -> int:
        """The most attempts that any error leads to."""
        return max([self.max_attempts, *self.attempts.values()])

    def wait_after(self, attempt: int, error: BaseException | None = None) -> timedelta:
        """Give the wait between attempt number `attempt` (1-based) and the next.

        An error may ask for a longer one by an attribute `retry_after`, a timedelta: as servers do that are too busy.
        """
        asked = getattr(error, "retry_after", None)
        wait = self._wait_after(attempt)
        return max(wait, asked) if isinstance(asked, timedelta) else wait

    def _wait_after(self, attempt: int) -> timedelta:
        try:
            seconds = self.first.total_seconds() * self.factor ** (attempt - 1)
        except OverflowError:
            return self.maximum
        return self.maximum if seconds >= self.maximum.total_seconds() else timedelta(seconds=seconds)
