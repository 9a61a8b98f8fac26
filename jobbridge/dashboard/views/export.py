"""The jobs that match a filter as a file: for spreadsheets, or for programs."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from starlette.responses import Response, StreamingResponse

from jobbridge.core.access import Role
from jobbridge.dashboard.access.request_context import RequestContext, Rule
from jobbridge.dashboard.views.columns import available, plain, shown, typed
from jobbridge.dashboard.views.filters import filters_of, search_of
from jobbridge.store.monitor.search import Position, Search

if TYPE_CHECKING:
    from jobbridge.dashboard.views.columns import Column
    from jobbridge.store.jobs.rows import JobRow
    from jobbridge.store.monitor.search import MonitorStore

#: Jobs of one file; whoever wants more asks for a shorter time, or asks the database.
MOST = 50_000
_PAGE = 200
_OWN = ("job_id", "type", "status")
#: What a cell begins with that spreadsheets compute; some as wide characters, and some after blanks.
_FORMULAS = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def export(context: RequestContext) -> Response:
    """Give all jobs that match, newest first, as CSV; it is written while it is read."""
    return _file(context, "csv", "text/csv; charset=utf-8", _csv)


def export_json(context: RequestContext) -> Response:
    """Give the same as JSON: `{"jobs": […], "is_cut": false}`, each with the columns of the CSV, a job on a line.

    Instants are ISO 8601, lengths of time are seconds, and what is not there is null.
    """
    return _file(context, "json", "application/json", _json)


_Written = Callable[["_Jobs", "list[Column]"], Iterator[str]]


def _file(context: RequestContext, kind: str, media_type: str, write: _Written) -> Response:
    query = context.request.query_params
    search = search_of(query, context.tenant)
    filters = [f"{name}={value}" for name, value in filters_of(query)]
    context.note("export", tenant=search.tenant, details={"filter": filters, "format": kind})
    name = f"jobs-{datetime.now(UTC):%Y%m%d-%H%M%S}.{kind}"
    return StreamingResponse(
        write(_Jobs(context.dashboard.monitor, search), available(context)),
        media_type=media_type,
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


class _Jobs:
    """Pages of the jobs that match, up to `MOST`.

    Attributes:
        written: How many were given.
        is_cut: There are more.
    """

    def __init__(self, monitor: MonitorStore, search: Search) -> None:
        self._monitor, self._search = monitor, search
        self.written = 0
        self.is_cut = False

    def __iter__(self) -> Iterator[Sequence[JobRow]]:
        before: Position | None = None
        while self.written < MOST:
            page = self._monitor.page(self._search, before=before, limit=_PAGE)
            self.written += len(page.jobs)
            yield page.jobs
            if page.next is None:
                return
            before = page.next
        self.is_cut = True


def _csv(jobs: _Jobs, columns: list[Column]) -> Iterator[str]:
    yield _line([*_OWN, *(column.name for column in columns)])
    for page in jobs:
        yield "".join(_line(_cells(job, columns)) for job in page)
    if jobs.is_cut:
        yield _line([f"This file ends after {jobs.written} jobs. Choose a shorter time to see the others."])


def _json(jobs: _Jobs, columns: list[Column]) -> Iterator[str]:
    yield '{"jobs": ['
    begin = "\n"
    for page in jobs:
        lines = [json.dumps(_object(job, columns), ensure_ascii=False) for job in page]
        if lines:
            yield begin + ",\n".join(lines)
            begin = ",\n"
    yield f'\n], "is_cut": {json.dumps(jobs.is_cut)}}}\n'


def _object(job: JobRow, columns: list[Column]) -> dict[str, object]:
    own = dict(zip(_OWN, (str(job.job_id), job.type, job.status.value), strict=True))
    return own | {column.name: typed(column.of(job)) for column in columns}


def _cells(job: JobRow, columns: list[Column]) -> list[str]:
    own = [str(job.job_id), job.type, job.status.value]
    return own + [plain(shown(column, job)) for column in columns]


def _line(cells: list[str]) -> str:
    line = io.StringIO()
    csv.writer(line).writerow([_harmless(cell) for cell in cells])
    return line.getvalue()


def _harmless(cell: str) -> str:
    """Keep spreadsheets from taking what somebody wrote for a formula (OWASP, "CSV Injection")."""
    is_formula = cell.startswith(("\t", "\r", "\n")) or cell.lstrip().startswith(_FORMULAS)
    return f"'{cell}" if is_formula else cell


RULES = (
    Rule("/jobs.csv", "export", export, Role.VIEWER),
    Rule("/jobs.json", "export_json", export_json, Role.VIEWER),
)
