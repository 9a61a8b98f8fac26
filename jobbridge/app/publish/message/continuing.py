"""A job that sends itself again: what its row is told of that, and when it goes on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from jobbridge.app.execute.claim import Run
from jobbridge.app.options import JobOptions
from jobbridge.app.publish.message.fields import instant
from jobbridge.core.envelope import Envelope
from jobbridge.core.events import Continuation
from jobbridge.core.status import JobStatus


def continuation_of(options: JobOptions, run: Run | None, headers: Mapping[str, Any]) -> Continuation | None:
    """Tell that a job goes on by this message, and how; None: it does not.

    Args:
        options: Of its sender.
        run: The attempt that sends it, of the same job.
        headers: Of the message.
    """
    if options.continues is not None:
        return Continuation(attempt=options.continues, is_retry=False)
    if run is None or run.attempt is None:
        return None
    if options.suspension is not None:
        return Continuation(attempt=run.attempt, is_retry=False, is_suspension=True)
    is_retry = int(headers.get("retries") or 0) > run.retries
    return Continuation(attempt=run.attempt, is_retry=is_retry)


def begins(
    options: JobOptions, headers: Mapping[str, Any], status: JobStatus
) -> tuple[datetime | None, JobStatus]:
    """Give when the job is to run, and its status until then."""
    if options.suspension is not None:
        until = options.suspension.until
        if options.suspension.waits:
            return until, JobStatus.WAITING
    else:
        until = instant(headers.get("eta"))
    return until, JobStatus.SCHEDULED if until is not None and status is JobStatus.QUEUED else status


def held(envelope: Envelope, options: JobOptions) -> Envelope:
    """Give a message as its workflow waits with it: until a time, or until it is woken."""
    if options.suspension is None:
        return envelope
    until = options.suspension.until
    return replace(
        envelope,
        eta=None if until is None else until.isoformat(),
        waits=True if options.suspension.waits else None,
    )
