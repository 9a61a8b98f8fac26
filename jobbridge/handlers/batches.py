"""Do a thing for each of many: one that fails stops no other, and the job fails at the end.

Every daily handler works like this. What was done before a failure, a cancel or the end of the process stays done;
the next attempt does the rest.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import psycopg
from celery.exceptions import Ignore, Reject, Retry, SoftTimeLimitExceeded

from jobbridge import JobBridgeError, JobCancelled, RetryPolicy
from jobbridge.errors import ConfigurationError, DatabaseError
from jobbridge.handlers.errors import PartlyFailed, PartlyRefused, Refusal
from jobbridge.handlers.mailing.errors import MailRefused, MailUncertain
from jobbridge.handlers.sql import Connection

Item = TypeVar("Item")

#: What is not about one item: the job stops here, and another attempt does the rest.
STOPS = (
    JobCancelled, DatabaseError, psycopg.OperationalError, psycopg.InterfaceError,
    SoftTimeLimitExceeded, Retry, Ignore, Reject,
)  # fmt: skip

#: Of a single item, what another attempt would not change.
FINAL = (Refusal, MailRefused, MailUncertain)

RETRY = RetryPolicy(non_retryable=(Refusal, PartlyRefused, ConfigurationError))

logger = logging.getLogger(__name__)


class Step(Protocol):
    """A named part of a job."""

    is_done: bool
    result: Any


class Context(Protocol):
    """What a batch needs of its `JobContext`."""

    @property
    def job_id(self) -> str: ...
    @property
    def tenant_id(self) -> str: ...
    def check_cancelled(self) -> None: ...
    def progress(self, done: float, total: float = ..., message: str | None = ...) -> None: ...
    def step(self, name: str, *, key: str | None = ...) -> AbstractContextManager[Step]: ...
    def transaction(self) -> AbstractContextManager[Connection]: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """What became of many items.

    Attributes:
        results: Of those that were done, in this attempt or an earlier one, by key.
        failures: Of those that were not.
    """

    results: dict[str, Any] = field(default_factory=dict)
    failures: dict[str, Exception] = field(default_factory=dict)

    def raise_failures(self, what: str) -> None:
        """Pass if nothing failed.

        Args:
            what: Completes "2 of 5 …": `credits were not expired`.

        Raises:
            PartlyFailed: Something failed; names each. PartlyRefused if another attempt would not change that.
        """
        if not self.failures:
            return
        is_final = all(isinstance(error, FINAL) for error in self.failures.values())
        kind = PartlyRefused if is_final else PartlyFailed
        reasons = {key: reason_of(error) for key, error in self.failures.items()}
        raise kind.about(what, reasons, of=len(self.results) + len(self.failures))


def for_each(ctx: Context, name: str, items: Mapping[str, Item], work: Callable[[Item], Any]) -> Batch:
    """Work on each item in a step of its own.

    Args:
        name: Of the steps: a verb.
        items: By the key of their step.
        work: Gives the step's result; commits what it does.

    Raises:
        JobCancelled: The job was cancelled; what was done stays done.
        DatabaseError: Postgres is away.
    """
    batch = Batch()
    for done, (key, item) in enumerate(items.items()):
        ctx.check_cancelled()
        ctx.progress(done, len(items), f"{name} {key}")
        try:
            with ctx.step(name, key=key) as step:
                if not step.is_done:
                    step.result = work(item)
            batch.results[key] = step.result
        except STOPS:
            raise
        except Exception as error:  # whatever it is, it is about this one item
            batch.failures[key] = error
            logger.warning(
                "batch.item_failed",
                extra={"job_id": ctx.job_id, "step": name, "key": key, "reason": reason_of(error)},
                exc_info=not isinstance(error, JobBridgeError),
            )
    return batch


def reason_of(error: Exception) -> str:
    """Say in one line why it failed, without the row that Postgres shows in its detail."""
    if isinstance(error, JobBridgeError):
        return str(error)
    message = error.diag.message_primary if isinstance(error, psycopg.Error) else None
    return f"{type(error).__name__}: {message or error}"
