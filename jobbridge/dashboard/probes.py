"""For load balancers and Prometheus: whether it lives, whether it can be used, and the numbers."""

from __future__ import annotations

from collections.abc import Iterator

from starlette.responses import JSONResponse, PlainTextResponse, Response

from jobbridge.core.access import Role
from jobbridge.core.keys import Engine
from jobbridge.core.status import JobStatus
from jobbridge.dashboard.visits import Rule, Visit
from jobbridge.errors import DatabaseError


def healthz(visit: Visit) -> Response:
    """This process answers; nothing else is asked, so that a database that is away restarts nobody."""
    return JSONResponse({"status": "ok"})


def readyz(visit: Visit) -> Response:
    """The database can be reached, and is at this release."""
    try:
        visit.app.database.run(lambda own: own.execute("SELECT 1"))
    except DatabaseError as error:
        return JSONResponse({"status": "not ready", "reason": type(error).__name__}, status_code=503)
    return JSONResponse({"status": "ready"})


def metrics(visit: Visit) -> Response:
    """Numbers of the whole installation, from the tables: the same in every process."""
    return PlainTextResponse(
        "\n".join(_metrics(visit)) + "\n", media_type="text/plain; version=0.0.4; charset=utf-8"
    )


def _metrics(visit: Visit) -> Iterator[str]:
    totals = visit.dashboard.counts.totals()
    yield "# HELP jobbridge_jobs Jobs in the table, by engine and status."
    yield "# TYPE jobbridge_jobs gauge"
    for engine in Engine:
        for status in JobStatus:
            labels = f'engine="{engine.value}",status="{status.value}"'
            yield f"jobbridge_jobs{{{labels}}} {totals.get((engine, status), 0)}"
    workers = visit.app.workers.alive()
    yield "# HELP jobbridge_workers Workers that live, by engine."
    yield "# TYPE jobbridge_workers gauge"
    for engine in Engine:
        alive = sum(worker.engine is engine for worker in workers)
        yield f'jobbridge_workers{{engine="{engine.value}"}} {alive}'


RULES = (
    Rule(path="/healthz", name="healthz", endpoint=healthz, needs=None),
    Rule(path="/readyz", name="readyz", endpoint=readyz, needs=None),
    Rule(path="/metrics", name="metrics", endpoint=metrics, needs=Role.VIEWER, is_global=True),
)
