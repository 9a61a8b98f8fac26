"""A schedule's arguments: sealed in its row, opened when it fires, when it is changed, and for whoever may see them.

The same arguments become the same, so that what code declares again does not look changed; by another key they do, and
are so written anew.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import UUID

from jobbridge.codec.rows import HIDDEN
from jobbridge.codec.sealing import Codec, sealed_text
from jobbridge.errors import EncryptionError

if TYPE_CHECKING:
    from jobbridge.store.schedules.rows import ScheduleRow

_PARTS = ("args", "kwargs")


def seal_arguments(codec: Codec, schedule_id: UUID, part: str, value: Any) -> Any:
    """Seal `args` or `kwargs`; what is empty stays so.

    Args:
        codec: Without keys the value stays as it is.
        schedule_id: Whose.
        part: "args" or "kwargs".
        value: As JSON has it.
    """
    if not codec or not value:
        return value
    return codec.seal_json(value, _place(schedule_id, part), is_exact=True, is_stable=True)


def open_schedule(codec: Codec, row: ScheduleRow) -> ScheduleRow:
    """Open a row; what is not sealed stays as it is.

    Raises:
        EncryptionError: It cannot be opened.
    """
    own: dict[str, Any] = {
        part: codec.open_json(value, _place(row.schedule_id, part), is_exact=True)
        for part in _PARTS
        if sealed_text(value := getattr(row, part)) is not None
    }
    return replace(row, **own) if own else row


def readable_schedule(codec: Codec, row: ScheduleRow) -> ScheduleRow:
    """Open a row for people; what cannot be opened says that it is encrypted."""
    try:
        return open_schedule(codec, row)
    except EncryptionError:
        return hidden_schedule(row)


def hidden_schedule(row: ScheduleRow) -> ScheduleRow:
    """Give a row for who may not see what is encrypted. It is to be shown, and not to be fired."""
    return replace(row, args=[HIDDEN], kwargs={})


def _place(schedule_id: UUID, part: str) -> str:
    return f"schedule/{schedule_id}/{part}"
