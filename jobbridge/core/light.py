"""Light delivery: a job that Temporal runs as an activity of its own, without a workflow.

Which way a job goes is said in its message's header; which way it went, in its row's external id: that of an activity
is the job's id after a prefix, as ids of workflows and of activities may be equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jobbridge.core.envelope import HEADER

#: In the header `jobbridge` of a message.
LIGHT = "light"

_PREFIX = "activity/"


def is_light(headers: Mapping[str, Any] | None) -> bool:
    """Whether a message is to go without a workflow."""
    return bool(((headers or {}).get(HEADER) or {}).get(LIGHT))


def as_light(headers: Mapping[str, Any]) -> dict[str, Any]:
    """Give a message's headers, which say now that it goes without a workflow."""
    return {**headers, HEADER: {**(headers.get(HEADER) or {}), LIGHT: True}}


def external_id_of(activity_id: str) -> str:
    """Give the row's external id for an activity."""
    return _PREFIX + activity_id


def activity_id_in(external_id: str | None) -> str | None:
    """Give the activity's id; None: it is no activity's."""
    if external_id is None or not external_id.startswith(_PREFIX):
        return None
    return external_id.removeprefix(_PREFIX)
