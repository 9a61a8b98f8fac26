"""The jobs that match a filter as a file for spreadsheets."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from starlette.responses import Response, StreamingResponse

from jobbridge.core.access import Role
from jobbridge.dashboard.access.request_context import RequestContext, Rule
from jobbridge.dashboard.views.columns import available, plain
from jobbridge.dashboard.views.filters import filters_of, search_of
from jobbridge.store.monitor.search import Position, Search

if TYPE_CHECKING:
    from jobbridge.dashboard.views.columns import Column
    from jobbridge.store.jobs.rows import JobRow
    from jobbridge.store.monitor.search import MonitorStore

#: Jobs of one file; whoever wants more asks for a shorter time, or asks the database.
MOST = 50_000
_PAGE = 200
#: What a cell begins with that spreadsheets compute; some as wide characters, and some after blanks.
_FORMULAS = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def export(context: RequestContext) -> Response:
    """Give all jobs that match, newest first, as CSV; it is written while it is read."""
    query = context.request.query_params
    search = search_of(query, context.tenant)
    filters = [f"{name}={value}" for name, value in filters_of(query)]
    context.note("export", tenant=search.tenant, details={"filter": filters})
    name = f"jobs-{datetime.now(UTC):%Y%m%d-%H%M%S}.csv"
    return StreamingResponse(
        _lines(context.dashboard.monitor, search, available(context)),
        media_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


def _lines(monitor: MonitorStore, search: Search, columns: list[Column]) -> Iterator[str]:
    yield _line(["job_id", "type", "status", *(column.name for column in columns)])
    before: Position | None = None
    written = 0
    while written < MOST:
        page = monitor.page(search, before=before, limit=_PAGE)
        yield "".join(_line(_cells(job, columns)) for job in page.jobs)
        written += len(page.jobs)
        if page.next is None:
            return
        before = page.next
    yield _line([f"This file ends after {written} jobs. Choose a shorter time to see the others."])


def _cells(job: JobRow, columns: list[Column]) -> list[str]:
    own = [str(job.job_id), job.type, job.status.value]
    return own + [plain(column.of(job)) for column in columns]


def _line(cells: list[str]) -> str:
    line = io.StringIO()
    csv.writer(line).writerow([_harmless(cell) for cell in cells])
    return line.getvalue()


def _harmless(cell: str) -> str:
    """Keep spreadsheets from taking what somebody wrote for a formula (OWASP, "CSV Injection")."""
    is_formula = cell.startswith(("\t", "\r", "\n")) or cell.lstrip().startswith(_FORMULAS)
    return f"'{cell}" if is_formula else cell


RULES = (Rule("/jobs.csv", "export", export, Role.VIEWER),)
