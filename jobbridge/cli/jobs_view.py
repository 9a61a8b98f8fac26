"""How jobs are shown on a terminal: as on the dashboard without secrets, since it is what people copy into a ticket."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from jobbridge.cli.common import ago, console, seconds_between, styled, visible
from jobbridge.core.masking.values import masked, without_passwords

if TYPE_CHECKING:
    from jobbridge.core.fanout import ChildCounts
    from jobbridge.store.jobs.rows import JobDetailRow, JobRow


def line(row: JobRow) -> tuple[str, ...]:
    """Give the cells of a job in a list."""
    seconds = seconds_between(row.started_at, row.completed_at)
    return (
        str(row.job_id),
        row.type,
        row.runner_type.value,
        styled(row.status),
        str(row.attempt),
        "" if seconds is None else f"{seconds:.2f}",
        ago(row.created_at),
        row.tenant,
    )


def show_job(row: JobRow, details: list[JobDetailRow], children: ChildCounts | None = None) -> None:
    """Print a job, how its children are, and its steps."""
    out = console()
    facts = Table.grid(padding=(0, 2))
    for name, value in _facts(row):
        if value not in (None, "", {}):
            facts.add_row(f"[bold]{name}[/]", value if isinstance(value, str) else str(value))
    out.print(facts)
    if children is not None:
        out.print(f"[bold]children[/]  {children_line(children)}")
    if details:
        out.print(_steps(details))
    if row.traceback:
        out.print(without_passwords(row.traceback), markup=False, style="dim")


def children_line(counts: ChildCounts) -> str:
    """Say how the children of a job are."""
    states = ("completed", "failed", "cancelled", "expired", "skipped", "released", "waiting")
    told = [f"{number} {state}" for state in states if (number := getattr(counts, state))]
    return f"{counts.ended} of {counts.total} have ended" + (f" ({', '.join(told)})" if told else "")


def _facts(row: JobRow) -> list[tuple[str, Any]]:
    from rich.markup import escape

    return [
        ("job", f"{row.job_id}"),
        ("type", escape(row.type)),
        ("status", styled(row.status)),
        ("engine", row.runner_type.value),
        ("external id", row.external_id),
        ("run id", row.external_run_id),
        ("tenant", escape(row.tenant)),
        ("user", row.user_id),
        ("queue", row.queue),
        ("priority", row.priority or None),
        ("attempts", f"{row.attempt}" + (f" of {row.max_attempts}" if row.max_attempts else "")),
        ("progress", _progress(row)),
        ("created", row.created_at),
        ("run at", row.run_at),
        ("started", row.started_at),
        ("ended", row.completed_at),
        ("worker", row.worker),
        ("cancelled by", row.cancelled_by),
        ("reason", without_passwords(row.cancel_reason)),
        ("metadata", _json(row.metadata) if row.metadata else None),
        ("result", _json(row.result) if row.result is not None else None),
        ("error", f"[red]{escape(without_passwords(row.error))}[/]" if row.error else None),
    ]


def _json(value: Any) -> str:
    from rich.markup import escape

    return escape(json.dumps(masked(value), default=str, ensure_ascii=False))


def _progress(row: JobRow) -> str | None:
    if row.progress is None:
        return None
    return f"{row.progress:g} %" + (
        f" {without_passwords(row.progress_message)}" if row.progress_message else ""
    )


def _steps(details: list[JobDetailRow]) -> Table:
    table = Table(
        "step", "key", "status", "attempt", "seconds", "error", box=None, title="Steps", title_justify="left"
    )
    for detail in details:
        seconds = seconds_between(detail.created_at, detail.processed_at)
        error = without_passwords(detail.error).splitlines()
        table.add_row(
            Text(visible(detail.step_name)),
            Text(visible(detail.step_key or "")),
            "superseded" if "superseded" in detail.metadata else styled(detail.status),
            str(detail.attempt),
            "" if seconds is None else f"{seconds:.2f}",
            Text(visible(error[0] if error else "")),
        )
    return table
