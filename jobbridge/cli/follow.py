"""Following a job until it ends."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from jobbridge.cli.common import visible
from jobbridge.core.masking.values import without_passwords
from jobbridge.core.status import FINAL
from jobbridge.errors import JobNotFound, StillRunning

if TYPE_CHECKING:
    from jobbridge.app.application import Celery
    from jobbridge.core.keys import JobKey
    from jobbridge.store.jobs.rows import JobRow

_PAUSE = 0.2


def changes_of(app: Celery, key: JobKey, *, timeout: float | None = None) -> Iterator[JobRow]:
    """Give the job as it is, and again each time that it has changed; the last one has ended.

    Raises:
        JobNotFound: It is not there (any more).
        StillRunning: It has not ended within `timeout` seconds.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    seen: Any = None
    while True:
        row = app.jobs.get(key)
        if row is None:
            raise JobNotFound.with_id(str(key.job_id))
        state = (row.status, row.attempt, row.progress, row.progress_message)
        if state != seen:
            seen = state
            yield row
        if row.status in FINAL:
            return
        if deadline is not None and time.monotonic() > deadline:
            raise StillRunning(f"{row.type} {row.job_id} is {row.status.value} after {timeout:g} s.")
        time.sleep(_PAUSE)


def told(row: JobRow) -> str:
    """Say in a line how a job is."""
    parts = [f"{datetime.now(UTC):%H:%M:%S}", row.status.value]
    if row.attempt:
        parts.append(f"attempt {row.attempt}")
    if row.progress is not None:
        parts.append(f"{row.progress:g} %")
    if row.progress_message:
        parts.append(row.progress_message)
    if row.error and row.status in FINAL:
        parts.append(row.error.splitlines()[0])
    if row.cancel_reason:
        parts.append(row.cancel_reason)
    return visible(without_passwords("  ".join(parts)))
