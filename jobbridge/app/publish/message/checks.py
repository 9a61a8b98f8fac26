"""What a message may say, checked before anything is written.

One rule for both engines and all that reads it later: Postgres has no NUL, Temporal no id of any length, AMQP ten
priorities, and Python years up to 9999.

A task id is Celery's own text, as it was given: a uuid is no other for its capitals or missing dashes, so two spellings
of one are one job (`core.keys.job_id_for`), which keeps the spelling by which it was sent.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from kombu import compression

from jobbridge.errors import UnsupportedOption

#: Characters of a task id: AMQP's correlation id has no more, and Temporal's workflow ids are cut at a thousand bytes.
LONGEST_ID = 255
#: Celery writes them: `repr` has neither NULs nor half characters, and they may be long.
_SAFE_HEADERS = frozenset({"argsrepr", "kwargsrepr", "origin", "lang"})
_NUMBERS = frozenset({int, float, bool, type(None)})
_IDS = ("task_id", "group_id", "root_id", "parent_id")
_FARTHEST = 3650 * 86_400 * 100.0  # seconds; a thousand years


def readable_ids(options: dict[str, Any]) -> dict[str, Any]:
    """Give options of `send_task` with ids as text, where they are UUID objects, and times that can be reckoned with.

    Raises:
        UnsupportedOption: An id is neither, or a number of seconds leads out of the calendar.
    """
    ids: dict[str, Any] = {}
    for name in _IDS:
        value = options.get(name)
        if isinstance(value, UUID):
            ids[name] = str(value)
        elif value is not None and not isinstance(value, str):
            raise UnsupportedOption(f"{name} is {value!r:.60}.", hint="Pass text, or a UUID.")
    for name in ("countdown", "expires"):
        value = options.get(name)
        if isinstance(value, int | float) and (not math.isfinite(value) or abs(value) > _FARTHEST):
            raise UnsupportedOption(
                f"{name} is {value!r:.60} seconds.", hint="Pass less than a thousand years."
            )
    texts = {name: options[name] for name in ("eta", "expires") if isinstance(options.get(name), str)}
    if texts:
        with_zones(texts)
    return options | ids if ids else options


def check_message(name: str, headers: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """Refuse what could be stored, or delivered, on one engine only, or on none.

    Args:
        name: Of the task.
        headers: Celery's, of the message.
        options: What its sender was given besides.

    Raises:
        UnsupportedOption: It says what, and what would do.
    """
    task_id = str(headers["id"])
    if not task_id or len(task_id) > LONGEST_ID:
        raise UnsupportedOption(
            f"task_id has {len(task_id)} characters: {task_id[:60]!r}…",
            hint=f"Pass text of 1 to {LONGEST_ID} characters; what is longer belongs into the arguments.",
        )
    check_priority(options.get("priority"))
    _check_compression(options.get("compression"))
    _check_text("task name", name)
    _check_text("task_id", task_id)
    for option in ("queue", "routing_key", "exchange"):
        value = options.get(option)
        if value is not None:
            _check_text(option, value if isinstance(value, str) else getattr(value, "name", None) or "")
    for each in (headers, options.get("headers") or {}):
        if each and not _are_harmless(each):
            for path, text in _texts(each):
                _check_text(f"header {path!r}", text)


def check_priority(value: Any) -> None:
    """Refuse what is no priority.

    Raises:
        UnsupportedOption: It is no whole number from 0 to 9.
    """
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 9):
        raise UnsupportedOption(f"priority is {value!r:.60}.", hint="Pass 0 to 9; higher runs first.")


def _check_compression(name: Any) -> None:
    """Refuse one that kombu does not know: Temporal's jobs, which are not compressed, fall back to where they are."""
    if name is None or name == "":
        return
    try:
        compression.get_encoder(name)
    except KeyError:
        known = ", ".join(sorted({each.rpartition("/")[2] for each in compression.encoders()}))
        raise UnsupportedOption(
            f"compression is {name!r:.60}.", hint=f"Pass one that kombu knows: {known}."
        ) from None


def with_zones(headers: dict[str, Any]) -> dict[str, Any]:
    """Give headers whose `eta` and `expires` name their zone: UTC where they named none, as Celery reads them.

    Source: celery 5.7, utils/time.py, `maybe_make_aware`.

    Raises:
        UnsupportedOption: One is no instant between the years 1 and 9999.
    """
    changed = {}
    for name in ("eta", "expires"):
        value = headers.get(name)
        if value is None or value == "":
            continue
        try:
            at = value if isinstance(value, datetime) else datetime.fromisoformat(value)
            zoned = at if at.tzinfo else at.replace(tzinfo=UTC)
            zoned.astimezone(UTC)
        except (ValueError, TypeError, OverflowError):
            raise UnsupportedOption(
                f"{name} is {str(value)[:60]!r}.", hint="Pass a datetime between the years 1 and 9999."
            ) from None
        if zoned is not value and at.tzinfo is None:
            changed[name] = zoned.isoformat()
    return headers | changed if changed else headers


def _are_harmless(headers: Mapping[str, Any]) -> bool:
    """Whether nothing need be looked for in them, seen at once: most are numbers, plain text, or nothing."""
    texts = list(headers)
    for value in headers.values():
        if type(value) is str:
            texts.append(value)
        elif value and type(value) not in _NUMBERS and not _are_numbers(value):
            return False
    try:
        return _is_harmless("".join(texts))
    except TypeError:
        return False  # a name that is no text


def _are_numbers(value: Any) -> bool:
    return type(value) is list and all(type(each) in _NUMBERS for each in value)


def _is_harmless(text: str) -> bool:
    return text.isascii() and "\x00" not in text


def _check_text(what: str, text: str) -> None:
    if _is_harmless(text):
        return
    if "\x00" in text:
        raise UnsupportedOption(
            f"The {what} holds a NUL: {text[:60]!r}.", hint="Take it out: Postgres stores none in a text."
        )
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UnsupportedOption(
            f"The {what} holds half a character: {text[:60]!r}.", hint="Take it out: it is no UTF-8."
        ) from None


def _texts(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for key, each in value.items():
            if path or key not in _SAFE_HEADERS:
                yield str(key), str(key)
                yield from _texts(each, str(key))
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _texts(each, path)
