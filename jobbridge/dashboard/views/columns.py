"""The columns of a list of jobs, and which of them somebody chose."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from jobbridge.dashboard.views.formats import exact, first_line, length
from jobbridge.dashboard.views.timeline import first_due_at

if TYPE_CHECKING:
    from starlette.requests import Request

    from jobbridge.dashboard.access.request_context import RequestContext
    from jobbridge.store.jobs.rows import JobRow

COOKIE = "jobbridge_columns"


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """One column; the job's type and id, and its status, are always shown.

    Attributes:
        of: Gives what a cell says: a text, a number, an instant, or a length of time.
        field: Under which name a live page finds the cell, if it changes while the job runs.
        is_length: It gives a length of time.
        is_global: Not for who is bound to a tenant.
    """

    name: str
    title: str
    of: Callable[[JobRow], Any]
    field: str = ""
    is_number: bool = False
    is_length: bool = False
    is_default: bool = True
    is_global: bool = False


def _between(begin: datetime | None, end: datetime | None) -> timedelta | None:
    return end - begin if begin and end else None


COLUMNS: Sequence[Column] = (
    Column(name="created", title="Created", of=lambda job: job.created_at),
    Column(name="engine", title="Engine", of=lambda job: job.runner_type.value),
    Column(name="queue", title="Queue", of=lambda job: job.queue),
    Column(name="tenant", title="Tenant", of=lambda job: job.tenant, is_global=True),
    Column(name="attempt", title="Attempts", of=lambda job: job.attempt, field="attempt", is_number=True),
    Column(name="wait", title="Wait", is_number=True, is_length=True, is_default=False,
           of=lambda job: _between(first_due_at(job), job.started_at)),
    Column(name="run_time", title="Run time", field="run_time", is_number=True, is_length=True,
           of=lambda job: _between(job.started_at, job.completed_at)),
    Column(name="error", title="Error", of=lambda job: first_line(job.error), field="error"),
    Column(name="due", title="Due", of=lambda job: job.run_at, is_default=False),
    Column(name="started", title="Started", of=lambda job: job.started_at, is_default=False),
    Column(name="ended", title="Ended", of=lambda job: job.completed_at, is_default=False),
    Column(name="priority", title="Priority", of=lambda job: job.priority, is_number=True, is_default=False),
    Column(name="worker", title="Worker", of=lambda job: job.worker, is_default=False, is_global=True),
    Column(name="user", title="User", of=lambda job: str(job.user_id or ""), is_default=False),
    Column(name="singleton", title="Singleton key", of=lambda job: job.singleton_key, is_default=False),
)  # fmt: skip


def available(context: RequestContext) -> list[Column]:
    """Give the columns that this person may see."""
    return [column for column in COLUMNS if not (column.is_global and context.principal.tenant is not None)]


def chosen(context: RequestContext) -> list[Column]:
    """Give the columns that this browser chose; else the usual ones: the tenant is one where there are several."""
    names = _remembered(context.request)
    if names is None:
        names = {column.name for column in COLUMNS if column.is_default}
        names -= set() if context.sees_several_tenants else {"tenant"}
    return [column for column in available(context) if column.name in names]


def remember(names: Sequence[str]) -> str:
    """Write a choice for the cookie."""
    return ".".join(column.name for column in COLUMNS if column.name in names) or "none"


def _remembered(request: Request) -> set[str] | None:
    text = request.cookies.get(COOKIE)
    return set(text.split(".")) if text else None


def shown(column: Column, job: JobRow) -> Any:
    """Give a cell for people: a text, a number, or an instant."""
    value = column.of(job)
    return length(value) if column.is_length else value


def plain(value: object) -> str:
    """Write a cell for a file."""
    match value:
        case None:
            return ""
        case datetime():
            return exact(value)
        case _:
            return str(value)


def typed(value: object) -> str | int | float | None:
    """Give a cell as JSON has it: an instant as text, a length of time in seconds."""
    match value:
        case None | str() | int() | float():
            return value
        case timedelta():
            return value.total_seconds()
        case _:
            return plain(value)
