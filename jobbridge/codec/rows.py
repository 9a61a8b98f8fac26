"""What of a job's events and rows is sealed.

Events are sealed before they become statements, so whatever writes a row (one by one, in batches, in bulk, from a
pool's process) writes the same. Rows for Celery and for the engines are opened where they are read, and so is the row
of one job. Rows in lists stay sealed: what is shown of them is `(encrypted)` (`core.masking.texts`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

from jobbridge.codec.sealing import Codec, key_of, sealed_text
from jobbridge.core import events
from jobbridge.core.masking.texts import ENCRYPTED
from jobbridge.errors import EncryptionError

if TYPE_CHECKING:
    from jobbridge.store.jobs.rows import JobDetailRow, JobRow, StoredDelivery, StoredResult

#: In the metadata of a row: its arguments, in one form or the other.
ARGUMENTS = ("data", "argsrepr", "kwargsrepr")
#: What is shown instead of what may not be seen.
HIDDEN = ENCRYPTED
#: An exception's class stays readable, so that failures can be told apart and counted.
_ERROR = re.compile(r"([A-Za-z_][A-Za-z0-9_.]*): (.*)", re.DOTALL)

_Event = TypeVar("_Event", bound=events.JobEvent)
_Row = TypeVar("_Row")


def opened(
    codec: Codec, make: Callable[..., _Row], open_row: Callable[[Codec, _Row], _Row]
) -> Callable[..., _Row]:
    """Give what makes a row of its columns, opened.

    Args:
        codec: Opens it.
        make: Makes it of its columns.
        open_row: One of the functions below.
    """
    return lambda **columns: open_row(codec, make(**columns))


def place_of(job_id: UUID, field: str) -> str:
    """Name the place of a job's value."""
    return f"{job_id}/{field}"


def seal_event(codec: Codec, event: _Event) -> _Event:
    """Give an event whose content is sealed; again is harmless."""
    if not codec:
        return event
    own: dict[str, Any] = {}
    if isinstance(event, events.Submitted | events.Started):
        own["metadata"] = seal_metadata(codec, event.metadata, event.key.job_id)
    if isinstance(event, events.Submitted | events.Redelivered | events.Moved) and event.message is not None:
        place = place_of(event.key.job_id, "message")
        own["message"] = codec.seal_json(event.message, place, is_exact=True)
    if isinstance(event, events.Progressed):
        own["message"] = _sealed_text(codec, event.message, event.key.job_id, "progress")
    if isinstance(event, events.AttemptFailed | events.Failed):
        own["error"] = seal_error(codec, event.error, event.key.job_id)
        own["traceback"] = _sealed_text(codec, event.traceback, event.key.job_id, "traceback")
    if isinstance(event, events.Completed | events.Failed):
        job_id, payload = event.key.job_id, event.result_payload
        if event.result is not None:
            own["result"] = codec.seal_json(event.result, place_of(job_id, "result"))
        if payload is not None and key_of(payload) is None:
            own["result_payload"] = codec.seal(payload, place_of(job_id, "payload"))
    return replace(event, **own) if own else event


def seal_metadata(codec: Codec, metadata: Mapping[str, Any], job_id: UUID) -> dict[str, Any]:
    """Give metadata whose arguments are sealed; what the sender wrote beside them stays readable."""
    own = {
        name: codec.seal_json(metadata[name], place_of(job_id, name))
        for name in ARGUMENTS
        if metadata.get(name) is not None
    }
    return {**metadata, **own}


def seal_error(codec: Codec, line: str, job_id: UUID) -> str:
    """Seal an error's text, and leave its class readable."""
    found = _ERROR.fullmatch(line)
    kind, text = (found[1], found[2]) if found else (None, line)
    sealed = codec.seal_text(text, place_of(job_id, "error"))
    return sealed if kind is None else f"{kind}: {sealed}"


def open_error(codec: Codec, line: str, job_id: UUID) -> str:
    """Open what `seal_error` sealed.

    Raises:
        EncryptionError: It cannot be opened.
    """
    found = _ERROR.fullmatch(line)
    kind, text = (found[1], found[2]) if found else (None, line)
    opened = codec.open_text(text, place_of(job_id, "error"))
    return opened if kind is None else f"{kind}: {opened}"


def open_result(codec: Codec, row: StoredResult) -> StoredResult:
    """Open a result for the result backend.

    Raises:
        EncryptionError: It cannot be opened.
    """
    own: dict[str, Any] = _open_end(codec, row)
    if row.result_payload is not None and key_of(row.result_payload) is not None:
        own["result_payload"] = codec.open(row.result_payload, place_of(row.job_id, "payload"))
    return replace(row, **own) if own else row


def open_delivery(codec: Codec, row: StoredDelivery) -> StoredDelivery:
    """Open a message for its engine.

    Raises:
        EncryptionError: It cannot be opened.
    """
    if sealed_text(row.message) is None:
        return row
    return replace(
        row, message=codec.open_json(row.message, place_of(row.key.job_id, "message"), is_exact=True)
    )


def open_job(codec: Codec, row: JobRow) -> JobRow:
    """Open a row for whoever may see it.

    Raises:
        EncryptionError: It cannot be opened.
    """
    own: dict[str, Any] = _open_end(codec, row)
    sealed = [name for name in ARGUMENTS if sealed_text(row.metadata.get(name)) is not None]
    if sealed:
        opened = {name: codec.open_json(row.metadata[name], place_of(row.job_id, name)) for name in sealed}
        own["metadata"] = {**row.metadata, **opened}
    if row.progress_message is not None:
        own["progress_message"] = codec.open_text(row.progress_message, place_of(row.job_id, "progress"))
    return replace(row, **own) if own else row


def open_detail(codec: Codec, row: JobDetailRow) -> JobDetailRow:
    """Open a step likewise.

    Raises:
        EncryptionError: It cannot be opened.
    """
    own = _open_end(codec, row)
    return replace(row, **own) if own else row


def open_progress(codec: Codec, message: str | None, job_id: UUID) -> str | None:
    """Open what a job says of its progress; as it is, if it cannot be opened."""
    try:
        return message and codec.open_text(message, place_of(job_id, "progress"))
    except EncryptionError:
        return message


def readable_job(codec: Codec, row: JobRow) -> JobRow:
    """Give a row opened; as it is, if it cannot be."""
    try:
        return open_job(codec, row)
    except EncryptionError:
        return row


def readable_detail(codec: Codec, row: JobDetailRow) -> JobDetailRow:
    """Give a step opened; as it is, if it cannot be."""
    try:
        return open_detail(codec, row)
    except EncryptionError:
        return row


def hidden_job(row: JobRow) -> JobRow:
    """Give a row for who may not see what is encrypted, whether this very row is or not."""
    own: dict[str, Any] = _hidden_end(row)
    told = {name: HIDDEN for name in ARGUMENTS if name in row.metadata}
    if row.progress_message is not None:
        own["progress_message"] = HIDDEN
    return replace(row, **own, metadata={**row.metadata, **told})


def hidden_detail(row: JobDetailRow) -> JobDetailRow:
    """Give a step likewise."""
    return replace(row, **_hidden_end(row))


def _sealed_text(codec: Codec, text: str | None, job_id: UUID, field: str) -> str | None:
    return None if text is None else codec.seal_text(text, place_of(job_id, field))


def _open_end(codec: Codec, row: JobRow | JobDetailRow | StoredResult) -> dict[str, Any]:
    own: dict[str, Any] = {}
    if sealed_text(row.result) is not None:
        own["result"] = codec.open_json(row.result, place_of(row.job_id, "result"))
    if row.error is not None and _is_sealed(row.error):
        own["error"] = open_error(codec, row.error, row.job_id)
    if row.traceback is not None and _is_sealed(row.traceback):
        own["traceback"] = codec.open_text(row.traceback, place_of(row.job_id, "traceback"))
    return own


def _hidden_end(row: JobRow | JobDetailRow) -> dict[str, Any]:
    kind = None if row.error is None else _ERROR.fullmatch(row.error)
    return {
        "result": None if row.result is None else HIDDEN,
        "error": row.error and (f"{kind[1]}: {HIDDEN}" if kind else HIDDEN),
        "traceback": row.traceback and HIDDEN,
    }


def _is_sealed(text: str) -> bool:
    return "jb1:" in text
