"""The words of sending a job: what is to happen when its singleton key is held, and what came of it."""

from __future__ import annotations

from enum import StrEnum

from jobbridge.errors import UnsupportedOption

#: Characters; Postgres can index no more than some 2,700 bytes.
SINGLETON_KEY_LIMIT = 255


#: How kombu ends the names of the queues and exchanges of remote control and of its answers (kombu 5.7, pidbox.py).
_CONTROL = ".pidbox"


def check_queue(name: str, *, event_prefix: str = "celeryev") -> None:
    """Refuse a queue from which no worker takes jobs, but what others tell it to do.

    Args:
        name: Where a job is to be sent.
        event_prefix: Celery's `event_queue_prefix`.

    Raises:
        UnsupportedOption: It is one of remote control, of its answers, or of events.
    """
    if name.endswith(_CONTROL) or name == event_prefix or name.startswith(f"{event_prefix}."):
        raise UnsupportedOption(
            f"The queue {name!r} is one of Celery's remote control, and takes no jobs.",
            hint="Choose a queue that a worker serves: `jobbridge queues list`.",
        )


class SingletonPolicy(StrEnum):
    """What a job does whose key another one holds.

    Attributes:
        SKIP: It is not made; the caller is given the one that holds the key.
        REPLACE: The other one is cancelled if it waits. If it runs, as SKIP.
        RAISE: DuplicateJob.
    """

    SKIP = "skip"
    REPLACE = "replace"
    RAISE = "raise"


class Outcome(StrEnum):
    """What came of asking for a job."""

    CREATED = "created"
    DEDUPLICATED = "deduplicated"
    REPLACED = "replaced"
