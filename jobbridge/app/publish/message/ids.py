"""Ids of jobs have their time in front: what is new is together on disk, and an id leads to its partition."""

from __future__ import annotations

import os
import time
from uuid import UUID

from jobbridge.store.partitions.spans import time_ordered_id


def new_job_id() -> UUID:
    """Make the id of a job: a UUID of version 7."""
    return time_ordered_id(time.time_ns() // 1_000_000, int.from_bytes(os.urandom(10), "big"))


def new_task_id() -> str:
    """The same, as Celery has its ids."""
    return str(new_job_id())
