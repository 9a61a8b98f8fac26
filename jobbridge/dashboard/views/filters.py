"""From the query of an address to a search, and back."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from starlette.datastructures import ImmutableMultiDict
from starlette.exceptions import HTTPException

from jobbridge.core.keys import Engine, TenantId
from jobbridge.core.status import JobStatus
from jobbridge.dashboard.access.request_context import storable
from jobbridge.store.monitor.search import Position, Search

Query = ImmutableMultiDict[str, str]

SINCE = {
    "1h": timedelta(hours=1),
    "24h": timedelta(days=1),
    "7d": timedelta(days=7),
    "30d": timedelta(days=30),
}
LIMIT = 50
MOST = 200

#: What of an address says which jobs; the rest is how they are shown.
FILTERS = ("status", "type", "engine", "queue", "since", "ended", "from", "to", "text", "tenant")


def search_of(query: Query, tenant: TenantId | None) -> Search:
    """Read what to look for.

    Args:
        query: Of the address; what is empty does not matter.
        tenant: Whose jobs, whatever the address says.

    Raises:
        HTTPException: 400, a value is not one of those there are.
    """
    statuses = [_one_of(JobStatus, "status", text) for text in query.getlist("status") if text]
    engine, since = query.get("engine"), _lately(query, "since")
    begins = [since] if since else []
    begins += [begin] if (begin := _instant(query, "from")) else []
    return Search(
        tenant=tenant,
        statuses=statuses or None,
        type=_text(query, "type"),
        engine=_one_of(Engine, "engine", engine) if engine else None,
        queue=_text(query, "queue"),
        since=max(begins, default=None),
        until=_instant(query, "to"),
        ended_since=_lately(query, "ended"),
        text=_text(query, "text"),
    )


def filters_of(query: Query) -> list[tuple[str, str]]:
    """Give what of the address says which jobs."""
    return [(name, value) for name, value in query.multi_items() if name in FILTERS and value]


def position_of(query: Query) -> Position | None:
    """Read where a page begins.

    Raises:
        HTTPException: 400, it is none that `position_text` wrote.
    """
    text = query.get("before")
    if not text:
        return None
    at, _, job_id = text.partition("_")
    try:
        return datetime.fromtimestamp(int(at) // 1_000_000, UTC).replace(
            microsecond=int(at) % 1_000_000
        ), UUID(job_id)
    except (ValueError, OverflowError, OSError):
        raise HTTPException(400, "The address says no place to go on from. Begin at the newest.") from None


def position_text(position: Position | None) -> str | None:
    """Write where the next page begins."""
    if position is None:
        return None
    at, job_id = position
    return f"{int((at - datetime.fromtimestamp(0, UTC)) / timedelta(microseconds=1))}_{job_id}"


def limit_of(query: Query) -> int:
    """Read how many jobs a page has.

    Raises:
        HTTPException: 400, it is no number, or too large.
    """
    text = query.get("limit") or str(LIMIT)
    if not (text.isascii() and text.isdigit() and len(text) < 5 and 1 <= int(text) <= MOST):
        raise HTTPException(400, f"limit is {text!r}; it must be 1 to {MOST}.")
    return int(text)


def _lately(query: Query, name: str) -> datetime | None:
    text = query.get(name)
    if text and text not in SINCE:
        raise _unknown(name, text, SINCE)
    return datetime.now(UTC) - SINCE[text] if text else None


def _instant(query: Query, name: str) -> datetime | None:
    """Read an instant; without a zone it is UTC, as browsers send what one picks from a calendar."""
    text = (query.get(name) or "").strip()
    if not text:
        return None
    try:
        at = datetime.fromisoformat(text)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise HTTPException(
            400, f"{name} is {text!r}; it must be an instant, such as 2026-01-31T08:00."
        ) from None


def _one_of(kind: Any, name: str, text: str) -> Any:
    try:
        return kind(text)
    except ValueError:
        raise _unknown(name, text, {member.value: member for member in kind}) from None


def _unknown(name: str, text: str, known: Mapping[str, object]) -> HTTPException:
    return HTTPException(400, f"{name} is {text!r}; it must be one of {', '.join(known)}.")


def _text(query: Query, name: str) -> str | None:
    return storable(query.get(name, "")).strip() or None
