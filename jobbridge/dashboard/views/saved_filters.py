"""Filters that somebody gave a name: they are kept by the browser, in a cookie, as the choice of columns is.

What a cookie says may be anything: it is read as an address is, and what cannot be read is not there.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from starlette.exceptions import HTTPException

from jobbridge.dashboard.access.request_context import storable
from jobbridge.dashboard.views.filters import FILTERS

if TYPE_CHECKING:
    from jobbridge.dashboard.access.request_context import RequestContext

COOKIE = "jobbridge_filters"
#: Of one browser.
MOST = 10
LONGEST_NAME = 60
#: Bytes of the cookie with its name; browsers drop a longer one without a word (RFC 6265, 6.1: 4096 with attributes).
_MOST_BYTES = 4000


@dataclass(frozen=True, kw_only=True, slots=True)
class SavedFilter:
    """A filter with a name.

    Attributes:
        filters: What of an address says which jobs.
        tenant: Of whoever saved it, if they are bound to one: others that use this browser are not told of it.
    """

    name: str
    filters: Sequence[tuple[str, str]]
    tenant: str


def saved(context: RequestContext) -> list[SavedFilter]:
    """Give what this person saved in this browser, in the order of their names."""
    mine = [each for each in _read(context) if each.tenant == _tenant(context)]
    return sorted(mine, key=lambda each: (each.name.casefold(), each.name))


def save(context: RequestContext, name: str, filters: Sequence[tuple[str, str]]) -> str:
    """Write the cookie that has this filter too; one of the same name is replaced.

    Raises:
        HTTPException: 422, it has no fitting name, is no filter, or there is no room for it.
    """
    name = name.strip()
    if not 1 <= len(name) <= LONGEST_NAME or not name.isprintable():
        raise HTTPException(
            422, f"Give the filter a name of 1 to {LONGEST_NAME} characters that can be read."
        )
    if not filters:
        raise HTTPException(422, "No filter is set: choose which jobs to show first, then give that a name.")
    others = _without(context, name)
    if sum(each.tenant == _tenant(context) for each in others) >= MOST:
        raise HTTPException(422, f"This browser has {MOST} saved filters already: remove one first.")
    written = _write([*others, SavedFilter(name=name, filters=filters, tenant=_tenant(context))])
    if len(COOKIE) + len(written) > _MOST_BYTES:
        raise HTTPException(
            422,
            "The saved filters of this browser would take more than 4 kB: remove one first, or look for less.",
        )
    return written


def forget(context: RequestContext, name: str) -> str | None:
    """Write the cookie that has no filter of this name any more; None: it has none at all."""
    others = _without(context, name)
    return _write(others) if others else None


def _without(context: RequestContext, name: str) -> list[SavedFilter]:
    return [each for each in _read(context) if (each.name, each.tenant) != (name, _tenant(context))]


def _tenant(context: RequestContext) -> str:
    return context.principal.tenant or ""


def _write(filters: Sequence[SavedFilter]) -> str:
    parts = [[each.name, each.tenant, *map(list, each.filters)] for each in filters]
    text = json.dumps(parts, ensure_ascii=False, separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _read(context: RequestContext) -> list[SavedFilter]:
    text = context.request.cookies.get(COOKIE, "")
    try:
        parts = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))) if text else []
        json.dumps(parts, ensure_ascii=False).encode()  # a half of a surrogate pair is no text for a page
        return [_saved(*part) for part in parts]
    except (ValueError, TypeError, RecursionError):
        return []  # somebody else's, or cut


def _saved(name: Any, tenant: Any, *filters: Any) -> SavedFilter:
    pairs = [(str(key), storable(str(value))) for key, value in filters]
    return SavedFilter(
        name=storable(str(name))[:LONGEST_NAME],
        filters=[(key, value) for key, value in pairs if key in FILTERS],
        tenant=str(tenant),
    )
