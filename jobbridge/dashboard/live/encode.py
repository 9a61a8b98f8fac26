"""What is sent: events as bytes, and what they say of a job."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from jobbridge.core.keys import Engine
from jobbridge.core.masking.values import without_passwords
from jobbridge.core.status import JobStatus
from jobbridge.dashboard.views.formats import exact, first_line
from jobbridge.store.monitor.change_log import LiveRow, Totals

#: Milliseconds after which a browser that lost the stream asks again.
RETRY = b"retry: 3000\n\n"
#: Jobs of one event; more are told in several.
PORTION = 500
#: Characters of an error's first line.
_ERROR = 300


def event(name: str, data: bytes = b"{}", *, cursor: str | None = None) -> bytes:
    """Make one event.

    Args:
        name: `open`, `jobs`, `counts` or `reset`.
        data: JSON, without line ends.
        cursor: What a client that comes back says it has seen.
    """
    head = b"" if cursor is None else b"id: %b\n" % cursor.encode()
    return b"%bevent: %b\ndata: %b\n\n" % (head, name.encode(), data)


def opened(*, resumed: bool, now: datetime, cursor: str) -> bytes:
    """Make the first event.

    Args:
        resumed: What the client missed follows; if not, it has to read anew.
        now: For clients whose clock is another.
    """
    return event("open", _json({"resumed": resumed, "now": exact(now)}), cursor=cursor)


def keep_alive(cursor: str | None) -> bytes:
    """Make what keeps proxies from closing the stream; browsers do not show it to anybody."""
    return b": still here\n\n" if cursor is None else b": still here\nid: %b\n\n" % cursor.encode()


def jobs_events(parts: Sequence[bytes], *, cursor: str) -> bytes:
    """Make the events that tell of these jobs; only the last says that all was told."""
    portions = [parts[start : start + PORTION] for start in range(0, len(parts), PORTION)]
    return b"".join(
        event("jobs", b"[%b]" % b",".join(portion), cursor=cursor if portion is portions[-1] else None)
        for portion in portions
    )


def job_json(row: LiveRow) -> bytes:
    """Write a job without its tenant: for those who have only one."""
    return _json(
        {
            "job_id": str(row.job_id),
            "type": row.type,
            "status": row.status.value,
            "engine": row.engine.value,
            "queue": row.queue,
            "attempt": row.attempt,
            "progress": row.progress,
            "progress_message": without_passwords(row.progress_message) or None,
            "error": first_line(row.error)[:_ERROR] or None,
            "created_at": exact(row.created_at),
            "updated_at": exact(row.updated_at),
            "run_at": exact(row.run_at) or None,
            "started_at": exact(row.started_at) or None,
            "completed_at": exact(row.completed_at) or None,
        }
    )


def with_tenant(row: LiveRow, told: bytes) -> bytes:
    """Add the tenant to what `job_json` wrote."""
    return b'{"tenant":%b,%b' % (_json(row.tenant), told[1:])


def totals_json(totals: Totals) -> bytes:
    """Write how many jobs there are, by engine and status, with the zeros."""
    return _json(
        {
            engine.value: {status.value: totals.get((engine, status), 0) for status in JobStatus}
            for engine in Engine
        }
    )


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
