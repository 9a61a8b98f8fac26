"""Fan-out: one parent job and its children. The rules, without I/O.

A parent is told truthfully: it completes only when none of its children failed, was cancelled or expired. A child that
was skipped (its tenant is suspended) is no failure: nobody wanted it to run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
from uuid import UUID, uuid5

from jobbridge.core.keys import JobKey, TenantId
from jobbridge.errors import UnsupportedOption

Json = Any  # what json.loads returns

#: How many children are with an engine at a time, unless said otherwise.
DEFAULT_CONCURRENCY = 10
MAX_CONCURRENCY = 10_000
MAX_CHILDREN = 100_000
KEY_LIMIT = 255

#: The task whose jobs are the parents that callers make (`runner.fan_out`).
FAN_OUT_TASK = "jobbridge.fan_out"

#: The message header of an attempt that looks after a fan-out instead of running the handler.
FAN_OUT_HEADER = "jobbridge_family"

#: The step of a parent while its children run, and the key in its metadata that tells the outcome.
CHILDREN_STEP = "children"
OUTCOME_KEY = "fan_out"


class MemberStatus(StrEnum):
    """Where a child is that has not ended; then it has its job's final status."""

    WAITING = "waiting"
    RELEASED = "released"


class FanOutOutcome(StrEnum):
    """What came of the children as a whole."""

    COMPLETE = "complete"
    PARTIAL = "partial"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True, slots=True)
class Child:
    """One item of a fan-out that says more than its data.

    Attributes:
        data: As for a job of that handler alone.
        tenant: Whose job; else the one in the data, else the parent's.
        key: Tells it from the others, also when the parent is run again; else the place in the list.
    """

    data: Json = None
    tenant: str | None = None
    key: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class FanOut:
    """What `ctx.fan_out` gives; a handler returns it.

    Raises:
        UnsupportedOption: The concurrency is out of bounds.
    """

    task: str
    items: Iterable[Any]
    concurrency: int = DEFAULT_CONCURRENCY
    key: Callable[[Any], str] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_concurrency(self.concurrency)

    def children(self) -> Iterable[Child]:
        """Give the items as children, each with its key.

        Raises:
            UnsupportedOption: Two have the same key, a key is too long, or there are too many.
        """
        seen: set[str] = set()
        for position, item in enumerate(self.items):
            child = item if isinstance(item, Child) else Child(data=item)
            key = child.key if child.key is not None else str(self.key(item) if self.key else position)
            self._check(key, seen, position)
            seen.add(key)
            yield Child(data=child.data, tenant=child.tenant, key=key)

    def _check(self, key: str, seen: set[str], position: int) -> None:
        if position >= MAX_CHILDREN:
            raise UnsupportedOption(
                f"The fan-out to {self.task!r} has more than {MAX_CHILDREN:,} items.",
                hint="Give each child several of them.",
            )
        if key in seen:
            raise UnsupportedOption(
                f"Two items of the fan-out to {self.task!r} have the key {key!r}.",
                hint="Give each item a key of its own, or none.",
            )
        if not 1 <= len(key) <= KEY_LIMIT or "\x00" in key:
            raise UnsupportedOption(
                f"An item of the fan-out to {self.task!r} has the key {key[:60]!r}.",
                hint=f"Give keys of 1 to {KEY_LIMIT} characters without NUL.",
            )


def check_concurrency(value: object) -> None:
    """Refuse what cannot be a number of children at a time.

    Raises:
        UnsupportedOption: It is no whole number from 1 to 10,000.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_CONCURRENCY:
        raise UnsupportedOption(
            f"concurrency is {value!r}.", hint=f"Pass a whole number from 1 to {MAX_CONCURRENCY:,}."
        )


def child_id(parent: JobKey, key: str) -> UUID:
    """Give the job id of a child: the same for the same parent and key, so that it is never made twice."""
    return uuid5(parent.job_id, key)


@dataclass(frozen=True, kw_only=True, slots=True)
class ChildCounts:
    """How many children there are in each state."""

    waiting: int = 0
    released: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    expired: int = 0
    skipped: int = 0

    @classmethod
    def of(cls, by_status: Mapping[str, int]) -> ChildCounts:
        """Make them of a mapping from status to number."""
        return cls(**by_status)

    @property
    def total(self) -> int:
        return self.unfinished + self.ended

    @property
    def unfinished(self) -> int:
        return self.waiting + self.released

    @property
    def ended(self) -> int:
        return self.completed + self.unsuccessful + self.skipped

    @property
    def unsuccessful(self) -> int:
        return self.failed + self.cancelled + self.expired

    @property
    def outcome(self) -> FanOutOutcome | None:
        """What came of it; None while a child has not ended."""
        if self.unfinished:
            return None
        if not self.unsuccessful:
            return FanOutOutcome.COMPLETE
        return FanOutOutcome.PARTIAL if self.completed else FanOutOutcome.FAILED

    def to_json(self) -> dict[str, Json]:
        """Give what the parent's result, or its metadata, says."""
        counts = {status: getattr(self, status) for status in _ENDS}
        document: dict[str, Json] = {"outcome": self.outcome, "total": self.total, **counts}
        return document if not self.unfinished else {**document, "unfinished": self.unfinished}


_ENDS = ("completed", "failed", "cancelled", "expired", "skipped")


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """A child as its fan-out knows it."""

    key: JobKey
    item_key: str
    status: str
    error: str | None = None


def failure_of(counts: ChildCounts, examples: Iterable[Member]) -> str:
    """Say for people how many children did not complete, and which."""
    parts = [
        f"{number} {status}"
        for status in ("failed", "cancelled", "expired")
        if (number := getattr(counts, status))
    ]
    named = [f"{member.item_key} ({member.error or member.status})"[:200] for member in examples]
    more = counts.unsuccessful - len(named)
    listed = "; ".join(named) + (f"; and {more} more" if more > 0 else "")
    return f"Of {counts.total} children {' and '.join(parts)}: {listed}."


def tenant_of(key: JobKey, tenant: str | None) -> TenantId:
    """Give a child's tenant: its own, else its parent's."""
    return TenantId(tenant) if tenant else key.tenant
