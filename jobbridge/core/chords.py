"""For which chord a message is sent: as a part of it, or as a link of a chain that ends in a part."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

#: The place of a part that has none: last.
_LAST = 2**31 - 1


class ChordPlace(TypedDict, total=False):
    """As a `Submitted` has it."""

    chord_id: str | None
    chord_index: int | None


def place_of(body: Any, headers: Mapping[str, Any]) -> ChordPlace:
    """Tell it of a message of Celery's task protocol 2, whose body ends with what is embedded."""
    embedded = body[2] or {}
    if embedded.get("chord"):
        return place_in_chord(headers.get("group"), headers.get("group_index"))
    if embedded.get("chain"):
        return {"chord_id": _chord_of_end(embedded["chain"][0])}
    return {}


def place_in_chord(group_id: str | None, index: int | None) -> ChordPlace:
    """Give the place of a part."""
    if not group_id:
        return {}
    return {"chord_id": group_id, "chord_index": _LAST if index is None else int(index)}


def _chord_of_end(signature: Mapping[str, Any]) -> str | None:
    """Give the chord that waits for the end of a chain; if the last link is a chord, that ends with its body."""
    options = signature.get("options") or {}
    if options.get("chord"):
        return options.get("group_id")
    if signature.get("subtask_type") == "chord" and (body := signature["kwargs"].get("body")):
        return _chord_of_end(body)
    return None
