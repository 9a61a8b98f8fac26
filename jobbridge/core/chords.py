"""For which chord a message is sent: as a part of it, or as a link of a chain that ends in a part.

A job that replaced itself by a canvas waits for the task of it that has its id, as the body of a chord waits for parts:
a link before that carries the job's mark in place of a chord's id.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict
from uuid import UUID

from jobbridge.core.keys import job_id_for

#: The header of all tasks of a canvas that replaced a job: the job's task id.
REPLACES = "jobbridge_replaces"
_REPLACED = "replaced:"

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
        replaced = headers.get(REPLACES)
        if replaced and any(end_of(link) == replaced for link in embedded["chain"]):
            return {"chord_id": mark_of_replaced(job_id_for(replaced))}
        return {"chord_id": _chord_of_end(embedded["chain"][0])}
    return {}


def place_in_chord(group_id: str | None, index: int | None) -> ChordPlace:
    """Give the place of a part."""
    if not group_id:
        return {}
    return {"chord_id": group_id, "chord_index": _LAST if index is None else int(index)}


def mark_of_replaced(job_id: UUID) -> str:
    """Give by what those know a job that replaced itself who come before the task with its id."""
    return f"{_REPLACED}{job_id}"


def replaced_by_mark(chord_id: str) -> UUID | None:
    """Give the id of such a job; None: it is a chord's id."""
    return UUID(chord_id.removeprefix(_REPLACED)) if chord_id.startswith(_REPLACED) else None


def end_of(signature: Mapping[str, Any]) -> str | None:
    """Give the id of the task by which a link ends: its own, or that of its chord's body."""
    if signature.get("subtask_type") == "chord" and (body := signature["kwargs"].get("body")):
        return end_of(body)
    if signature.get("subtask_type") == "chain" and (tasks := signature["kwargs"].get("tasks")):
        return end_of(tasks[-1])
    return (signature.get("options") or {}).get("task_id")


def _chord_of_end(signature: Mapping[str, Any]) -> str | None:
    """Give the chord that waits for the end of a chain; if the last link is a chord, that ends with its body."""
    options = signature.get("options") or {}
    if options.get("chord"):
        return options.get("group_id")
    if signature.get("subtask_type") == "chord" and (body := signature["kwargs"].get("body")):
        return _chord_of_end(body)
    return None
