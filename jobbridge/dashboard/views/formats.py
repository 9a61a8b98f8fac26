"""How values are shown: times, lengths of time, JSON (masked, see `masking`)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from jobbridge.core.masking.values import MASK as MASK
from jobbridge.core.masking.values import masked as masked
from jobbridge.core.masking.values import without_passwords as without_passwords

if TYPE_CHECKING:
    from jobbridge.dashboard.access.identity import Identity

_ID = re.compile(r"\b([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})\b")

_UNITS = (
    ("d", timedelta(days=1)),
    ("h", timedelta(hours=1)),
    ("min", timedelta(minutes=1)),
    ("s", timedelta(seconds=1)),
)


def as_json(value: Any) -> str:
    """Write a value for people, masked."""
    return json.dumps(masked(value), indent=2, ensure_ascii=False, default=str)


def exact(at: datetime | None) -> str:
    """Write an instant for machines and for hovering."""
    return "" if at is None else at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def relative(at: datetime | None) -> str:
    """Say how long ago it was, or in how long it will be."""
    if at is None:
        return "—"
    passed = datetime.now(UTC) - at
    if passed < timedelta(0):
        return f"in {length(-passed)}"
    return "now" if passed < timedelta(seconds=1) else f"{length(passed)} ago"


def length(passed: timedelta | None) -> str:
    """Say a length of time in the largest fitting unit."""
    if passed is None:
        return "—"
    for unit, size in _UNITS:
        if passed >= size:
            return (
                f"{passed / size:.1f} {unit}"
                if unit == "s" and passed < 10 * size
                else f"{passed // size} {unit}"
            )
    return f"{max(0, round(passed / timedelta(milliseconds=1)))} ms"


def short_tenant(tenant: str) -> str:
    """Cut the name of a tenant that is a uuid to its first eight characters; the others are cut by the style sheet."""
    return tenant[:8] if _ID.fullmatch(tenant) else tenant


def number(value: int) -> str:
    """Write a number with its thousands apart."""
    return f"{value:,}".replace(",", "\u202f")


def size(number_of_bytes: int) -> str:
    """Say a number of bytes."""
    for unit, one in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if number_of_bytes >= one:
            return f"{number_of_bytes / one:.1f} {unit}"
    return f"{number_of_bytes} bytes"


def merged(query: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Add to what an address asks for."""
    return {**query, **more}


def first_line(text: str | None) -> str:
    """Give the first line of a text, without passwords."""
    return without_passwords((text or "").strip().partition("\n")[0])


def with_tenant(query: dict[str, str], who: Identity, tenant: str | None) -> dict[str, str]:
    """Have an address keep to the tenant that is looked at; who is bound to one need not say so."""
    return query if tenant is None or who.principal.tenant is not None else query | {"tenant": tenant}


def per_cent(value: float) -> str:
    """Write a share so that only all is 100 %."""
    shown = f"{value:.1f}"
    return f"{'99.9' if shown == '100.0' and value < 100 else shown.removesuffix('.0')} %"


def sentence(text: str) -> str:
    """Begin a text with a capital letter."""
    return text[:1].upper() + text[1:]


def with_jobs(text: str) -> list[tuple[str, str | None]]:
    """Take a text apart where it names a job by its id: pieces, each with the id if it is one."""
    return [(part, part if _ID.fullmatch(part) else None) for part in _ID.split(text) if part]


FILTERS: dict[str, Callable[..., Any]] = {
    "with_tenant": with_tenant,
    "as_json": as_json,
    "exact": exact,
    "relative": relative,
    "length": length,
    "merged": merged,
    "size": size,
    "number": number,
    "short_tenant": short_tenant,
    "first_line": first_line,
    "per_cent": per_cent,
    "sentence": sentence,
    "with_jobs": with_jobs,
    "without_passwords": without_passwords,
}
