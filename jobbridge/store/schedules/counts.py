"""How many schedules there are. There are thousands at most, so they are counted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import LiteralString

from jobbridge.store.database import Database

COUNT: LiteralString = """
SELECT CASE WHEN paused THEN 'paused' WHEN next_fire_at IS NULL THEN 'ended' ELSE 'active' END, count(*)
FROM public.job_schedules
WHERE deleted_at IS NULL
GROUP BY 1
"""


def count_schedules(database: Database) -> Mapping[str, int]:
    """Count schedules by state: active, paused, or ended, which fire no more."""
    return dict(database.run(lambda own: own.execute(COUNT).fetchall()))
