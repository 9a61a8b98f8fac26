"""The words of sending a job: what is to happen when its singleton key is held, and what came of it."""

from __future__ import annotations

from enum import StrEnum

#: Characters; Postgres can index no more than some 2,700 bytes.
SINGLETON_KEY_LIMIT = 255


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
