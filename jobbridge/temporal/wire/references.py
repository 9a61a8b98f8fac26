"""What of a job's message goes by reference: it is in the job's row, and in the history of its workflow once at most.

Standard library only: the workflow imports this.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

Json = Any  # what json.loads returns

#: In bytes. What a workflow is given beyond its input (an activity's input, a retry's message, a signal) repeats no
#: more of the arguments than this: a thousand retries of 200 kB would not fit into any history.
INLINE_LIMIT = 4 * 1024

#: Stands for `data` that is not needed, because the message is in the job's row.
DATA_REFERENCE: Mapping[str, str] = {"$ref": "jobs.message"}

DATA_IS = "dataIs"
#: Marks a message whose arguments are large and in the job's row as well: an activity reads them there.
IN_ROW = "inRow"

_KEPT = (
    "id",
    "task",
    "tenant",
    "delivery",
    "queue",
    "eta",
    "waits",
    "expires",
    "priority",
    "timelimit",
    "max_crashes",
)


class DataIs(StrEnum):
    """What of the message the workflow's `data` is."""

    ARGUMENT = "argument"  # a handler's data: the first positional argument
    ARGUMENTS = "arguments"  # {"args": […], "kwargs": {…}}
    NOTHING = "nothing"  # the memo has it all, encoded (pickle and the like)
    REFERENCE = "reference"  # the job's row has it


def reference_to(message: Mapping[str, Json]) -> dict[str, Json]:
    """Give of a message what a workflow needs to know; the job's row has the whole."""
    kept = {name: message[name] for name in _KEPT if message.get(name) is not None}
    return {**kept, "headers": {}, DATA_IS: DataIs.REFERENCE.value}


def carried(message: dict[str, Json] | None) -> dict[str, Json] | None:
    """Give a message as it goes to an activity, or to the next run: by reference where that can be."""
    return reference_to(message) if message is not None and message.get(IN_ROW) else message


def needs_data(message: Mapping[str, Json] | None) -> bool:
    """Whether a message, in the form of `carried`, has its arguments in the workflow's `data`."""
    return message is None or message.get(DATA_IS) in (DataIs.ARGUMENT, DataIs.ARGUMENTS)
