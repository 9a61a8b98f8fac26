"""A job's data as somebody edits it. Secrets are shown masked, and what was left masked is what it was before."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from jobbridge.core.masking.values import MASK, masked
from jobbridge.dashboard.access import bodies

#: Characters; what is longer is not for editing in a browser.
LONGEST = 60_000


class NotJson(ValueError):
    """What was typed cannot be read; says where."""


class SecretMissing(ValueError):
    """A mask stands where there was no secret, so nobody knows what it hides."""


def read(text: str, original: Any) -> Any:
    """Read edited data.

    Args:
        text: What was typed.
        original: The data that was shown, masked.

    Raises:
        NotJson: It is no JSON.
        SecretMissing: It has a mask that hides nothing of the original.
    """
    try:
        edited = json.loads(text)
        bodies.check(edited)
    except bodies.Unreadable as error:
        raise NotJson(error.detail) from None
    except (ValueError, RecursionError) as error:
        raise NotJson(f"That is no JSON: {error}.") from None
    return unmasked(edited, original)


def unmasked(edited: Any, original: Any) -> Any:
    """Put the secrets back where their masks were left.

    Raises:
        SecretMissing: See `read`.
    """
    if edited == masked(original):
        return original
    match edited:
        case dict():
            before = original if isinstance(original, Mapping) else {}
            return {key: _value(key, inner, before) for key, inner in edited.items()}
        case list():
            before_list = original if isinstance(original, list) else []
            return [_element(place, inner, before_list) for place, inner in enumerate(edited)]
        case str() if MASK in edited:
            raise SecretMissing(
                f"{edited!r} has a mask of its own. Write the whole value, or leave it as it was shown."
            )
        case _:
            return edited


def _value(key: str, edited: Any, before: Mapping[str, Any]) -> Any:
    if edited == MASK and before.get(key) is not None and masked({key: before[key]}) == {key: MASK}:
        return before[key]
    return unmasked(edited, before.get(key))


def _element(place: int, edited: Any, before: list[Any]) -> Any:
    if place < len(before) and edited == masked(before[place]):
        return before[place]
    same = [each for each in before if masked(each) == edited]
    if same and all(each == same[0] for each in same):
        return same[0]
    return unmasked(edited, before[place] if place < len(before) else None)
