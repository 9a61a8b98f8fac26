"""An import: jobs of a batch, which add more to it, and what follows."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from celery import shared_task

import jobbridge
from jobbridge import JobContext, RetryPolicy, job
from tests.parity.tasks import folder, note, wait_for_file


@shared_task(name="parity.imported")
def imported(row: int) -> int:
    return row


@shared_task(name="parity.import_link")
def import_link(before: Any, row: int) -> int:
    return row


@shared_task(name="parity.import_waits")
def import_waits(name: str = "go") -> str:
    wait_for_file(name)
    return name


@shared_task(name="parity.import_adds")
def import_adds(batch_id: str, depth: int) -> str:
    """Add a job, which adds one, and so on; and one by `add`."""
    if depth:
        with jobbridge.batch.open(batch_id):
            import_adds.delay(batch_id, depth - 1)
        jobbridge.batch.open(batch_id).add(imported.s(depth))
    batch = jobbridge.batch.current()
    return "" if batch is None else batch.id


@job("parity.import_fails", retry=RetryPolicy(max_attempts=2, first=timedelta(milliseconds=10)))
def import_fails(ctx: JobContext, data: dict[str, Any]) -> int:
    tries = note("import_fails")
    if not (folder() / "mended").exists():
        raise ValueError(f"row {data['row']} is wrong")
    return tries


@shared_task(name="parity.import_followed")
def import_followed(kind: str, tag: str) -> str:
    return kind
