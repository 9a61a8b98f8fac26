"""`asset_import`: read an uploaded file, row by row, into the tenant's assets.

Step by step, what if the process dies in between, or the job comes twice?

- Dies before a batch is committed: none of its rows has an outcome, none of its assets is there; the next attempt reads
  the file up to that row again (which is quick), and goes on.
- Dies after a batch is committed, before the next: the next attempt goes on behind it.
- Dies while the report is written: it is one transaction; the next attempt writes it.
- Dies after the report is kept: a job has one report (unique); the next attempt finds it.
- The same job runs twice at once: each batch begins with a lock on the import's row; the second skips what the first
  has done meanwhile.
- Two jobs with the same asset at once: a tenant's batches are written one after another, so the second finds the first
  one's asset; against writers that know nothing of imports, unique constraints decide.
- Cancelled: between two batches. What was imported stays, each row with its outcome; another job for the same file
  finds those as duplicates.

Rows that are duplicates or invalid do not fail the job: its result counts them, and its report names each. If not a
single row is valid, the job fails: then it is the mapping, or the file, that is wrong.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from jobbridge import JobContext, RetryPolicy, job
from jobbridge.handlers.assets.errors import ImportRefusal
from jobbridge.handlers.assets.importing import Import
from jobbridge.handlers.assets.models import ImportAssets
from jobbridge.handlers.assets.outcomes import Progress
from jobbridge.handlers.files import StoredFile


@job(
    "asset_import",
    retry=RetryPolicy(non_retryable=(ImportRefusal,)),
    timeout=timedelta(minutes=10),
    tenant_required=True,
)
def asset_import(ctx: JobContext, data: ImportAssets) -> dict[str, Any]:
    """Import assets from CSV or XLSX: validate each row, find duplicates, create the rest."""
    task = Import(transaction=ctx.transaction, tenant=ctx.tenant_id, job_id=ctx.job_id, data=data)
    file = task.upload()
    ctx.progress(0, 1, f"reading {file.name}")

    def on_progress(share: float, progress: Progress) -> None:
        ctx.progress(min(share, 0.99), 1, told(progress))
        ctx.check_cancelled()

    with ctx.step("rows", key="rows") as step:
        if not step.is_done:
            step.result = {"told": told(task.import_rows(file, on_progress))}
    with ctx.step("report", key="report") as step:
        progress, report = task.finish(file)
        step.result = {"file_id": str(report.file_id) if report else None}
    ctx.progress(1, 1, told(progress))
    return described(file, progress, report)


def told(progress: Progress) -> str:
    return (
        f"{progress.rows:,} rows: {progress.created:,} created, {progress.duplicates:,} duplicates, "
        f"{progress.invalid:,} invalid"
    )


def described(file: StoredFile, progress: Progress, report: StoredFile | None) -> dict[str, Any]:
    """Give the job's result; the report is the id of a file, None if every row was created."""
    return {
        "file": file.name,
        "rows": progress.rows,
        "created": progress.created,
        "duplicates": progress.duplicates,
        "invalid": progress.invalid,
        "report": str(report.file_id) if report else None,
    }
