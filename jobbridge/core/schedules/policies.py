"""What becomes of a fire: overlap, lateness, jitter, and the id of its job."""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import assert_never

from jobbridge.core.keys import TenantId

_SCHEDULE_NAMESPACE = uuid.UUID("0a4d0a1f-4f0e-5c3c-8f6e-5b0f5b9f6f11")
_FIRE_NAMESPACE = uuid.UUID("5d0f6a0e-8f57-5f4b-9d7b-0d8f3c7e2b64")

DEFAULT_CATCHUP = timedelta(days=1)


class Overlap(StrEnum):
    """What a fire does while an earlier job of its schedule has not ended; the column `overlap`."""

    SKIP = "skip"  # nothing
    ALLOW = "allow"  # its job runs beside it
    BUFFER_ONE = "buffer_one"  # its job runs as soon as the other ended; further fires meanwhile are skipped
    CANCEL_OTHER = "cancel_other"  # the other is cancelled, and its job runs as soon as that has stopped


class FireOutcome(StrEnum):
    """What became of a fire; the column `outcome`."""

    ENQUEUED = "enqueued"  # it has a job
    BUFFERED = "buffered"  # its job is made as soon as the earlier one ended
    SKIPPED = "skipped"  # the overlap policy said so
    MISSED = "missed"  # nobody was there to fire it, and the catch-up window is over; with all up to `missed_until`
    FAILED = "failed"  # its job could not be made; `reason` says why


class Trigger(StrEnum):
    """Who asked for a fire; the column `trigger`."""

    SCHEDULE = "schedule"
    MANUAL = "manual"
    BACKFILL = "backfill"


@dataclass(frozen=True, kw_only=True, slots=True)
class OverlapDecision:
    """What to do with a fire.

    Attributes:
        outcome: enqueued, buffered or skipped.
        cancels: Cancel the jobs that have not ended.
        reason: For the history.
    """

    outcome: FireOutcome
    cancels: bool = False
    reason: str | None = None


def decide_overlap(
    overlap: Overlap, *, is_running: bool, has_buffered: bool, is_overtaken: bool = False
) -> OverlapDecision:
    """Decide what becomes of a fire.

    Args:
        overlap: The schedule's policy.
        is_running: An earlier job of the schedule has not ended, or was cancelled and has not stopped.
        has_buffered: An earlier fire waits for that.
        is_overtaken: A later fire is due already, for nobody was there to fire this one in time.
    """
    if is_overtaken and overlap is Overlap.CANCEL_OTHER:
        return OverlapDecision(
            outcome=FireOutcome.SKIPPED, reason="a later fire is due already, and would cancel its job"
        )
    if not is_running and not has_buffered:
        return OverlapDecision(outcome=FireOutcome.ENQUEUED)
    match overlap:
        case Overlap.ALLOW:
            return OverlapDecision(outcome=FireOutcome.ENQUEUED)
        case Overlap.CANCEL_OTHER:
            return OverlapDecision(outcome=FireOutcome.ENQUEUED, cancels=True)
        case Overlap.SKIP:
            return OverlapDecision(outcome=FireOutcome.SKIPPED, reason="an earlier job has not ended")
        case Overlap.BUFFER_ONE if has_buffered:
            return OverlapDecision(outcome=FireOutcome.SKIPPED, reason="another fire waits already")
        case Overlap.BUFFER_ONE:
            return OverlapDecision(outcome=FireOutcome.BUFFERED, reason="an earlier job has not ended")
        case _:
            assert_never(overlap)


def decide_after_cancel(*, is_stopping: bool) -> OverlapDecision:
    """Decide what becomes of a fire that cancelled the earlier job: it does not run beside what still stops."""
    if is_stopping:
        return OverlapDecision(
            outcome=FireOutcome.BUFFERED, reason="an earlier job was cancelled, and still stops"
        )
    return OverlapDecision(outcome=FireOutcome.ENQUEUED)


def schedule_id_for(tenant: TenantId, name: str) -> uuid.UUID:
    """Give the id of the schedule of that name: the same wherever and however often it is declared."""
    return uuid.uuid5(_SCHEDULE_NAMESPACE, f"{tenant}\n{name}")


def fire_job_id(tenant: TenantId, schedule_id: uuid.UUID, fire_at: datetime) -> uuid.UUID:
    """Give the id of the job that a fire makes: the same whoever fires it.

    Args:
        fire_at: The nominal instant, without jitter; for a manual run, when it was asked for.
    """
    instant = fire_at.astimezone(UTC).isoformat(timespec="microseconds")
    return uuid.uuid5(_FIRE_NAMESPACE, f"{tenant}\n{schedule_id}\n{instant}")


def jitter_of(
    schedule_id: uuid.UUID, fire_at: datetime, *, at_most: timedelta, following: datetime | None
) -> timedelta:
    """Give how much later than its nominal instant a fire comes: all schedulers find the same.

    Args:
        at_most: The schedule's jitter.
        following: The next nominal instant, which the fire does not pass.
    """
    if following is not None:
        at_most = min(at_most, following - fire_at)
    if at_most <= timedelta(0):
        return timedelta(0)
    seed = f"{schedule_id}\n{fire_at.astimezone(UTC).isoformat()}".encode()
    share = int.from_bytes(hashlib.sha256(seed).digest()[:4], "big")
    return timedelta(milliseconds=at_most / timedelta(milliseconds=1) * share // 2**32)
