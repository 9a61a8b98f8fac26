"""Sets of statuses as SQL writes them: from `jobbridge.core.status`, so that a new status is in all statements."""

from __future__ import annotations

from collections.abc import Collection
from typing import LiteralString

from jobbridge.core.status import FINAL, WAITING, JobStatus


def listed(statuses: Collection[JobStatus]) -> LiteralString:
    """Give what stands between the brackets of `IN (…)`, in the order of the statuses' lives."""
    return ", ".join(f"'{status}'" for status in JobStatus if status in statuses)


FINAL_STATUSES: LiteralString = listed(FINAL)
WAITING_STATUSES: LiteralString = listed(WAITING)
