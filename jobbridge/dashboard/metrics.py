"""For Prometheus: the numbers of the whole installation, from the tables.

So they are the same in every process, and a pool of processes needs no shared folder. Each scrape reads counts that are
kept (see `store.counts.counts` and `store.counts.flow`), never the jobs themselves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from starlette.responses import Response

from jobbridge.core.access import Role
from jobbridge.core.keys import Engine
from jobbridge.core.status import FINAL, JobStatus
from jobbridge.dashboard.access.request_context import RequestContext, Rule
from jobbridge.diagnosis import queues
from jobbridge.store.counts.flow import STARTED, FlowStore, together
from jobbridge.store.schedules.counts import count_schedules

if TYPE_CHECKING:
    from jobbridge.diagnosis.queues import Queue
    from jobbridge.store.counts.flow import Cell


#: Series cost Prometheus memory: so many queues are told, by name.
QUEUES = 200


class Numbers:
    """What one scrape is told; a registry of Prometheus's client, as far as its encoders ask.

    Args:
        visit: Who asks.
    """

    def __init__(self, context: RequestContext) -> None:
        self._context = context
        self._app = context.app

    def collect(self) -> Iterator[Metric]:
        """Give all metrics."""
        yield from self._build()
        yield from self._jobs()
        yield from self._flow()
        yield from self._workers_and_queues()
        yield from self._schedules()
        yield from self._findings()

    def _build(self) -> Iterator[Metric]:
        built = GaugeMetricFamily("jobbridge_build_info", "1; the release is the label.", labels=["version"])
        built.add_metric([_release()], 1)
        yield built

    def _jobs(self) -> Iterator[Metric]:
        totals = self._context.dashboard.counts.totals()
        jobs = GaugeMetricFamily(
            "jobbridge_jobs", "Jobs in the table, by engine and status.", labels=["engine", "status"]
        )
        for engine in Engine:
            for status in JobStatus:
                jobs.add_metric([engine.value, status.value], totals.get((engine, status), 0))
        yield jobs

    def _flow(self) -> Iterator[Metric]:
        cells = FlowStore(self._app.database).totals()
        ended = CounterMetricFamily(
            "jobbridge_jobs_ended", "Ends of jobs, also of such as were deleted.", labels=["engine", "status"]
        )
        for engine in Engine:
            for status in sorted(FINAL):
                jobs = sum(cell.jobs for cell in cells if (cell.engine, cell.status) == (engine, status))
                ended.add_metric([engine.value, status.value], jobs)
        yield ended
        yield _histogram(
            "jobbridge_job_wait_seconds",
            "From the moment when a job was sent and due, to its first start.",
            [cell for cell in cells if cell.status is STARTED],
        )
        yield _histogram(
            "jobbridge_job_run_seconds",
            "From a job's first start to its end, with all attempts and the pauses between them.",
            [cell for cell in cells if cell.status is not STARTED],
        )

    def _workers_and_queues(self) -> Iterator[Metric]:
        workers = self._app.workers.alive()
        by_engine = Counter(worker.engine for worker in workers)
        alive = GaugeMetricFamily("jobbridge_workers", "Workers that live, by engine.", labels=["engine"])
        for engine in Engine:
            alive.add_metric([engine.value], by_engine[engine])
        yield alive
        yield from _of_queues(queues.look(self._app, workers, limit=QUEUES).queues, datetime.now(UTC))

    def _schedules(self) -> Iterator[Metric]:
        counts = count_schedules(self._app.database)
        schedules = GaugeMetricFamily("jobbridge_schedules", "Schedules, by state.", labels=["state"])
        for state in ("active", "ended", "paused"):
            schedules.add_metric([state], counts.get(state, 0))
        yield schedules

    def _findings(self) -> Iterator[Metric]:
        """Tell what the last look at the tables found; one that is due is made first, if that does not take long."""
        report = self._context.dashboard.check_up.quick.soon(is_fresh=True)
        if report is None:
            return
        findings = GaugeMetricFamily(
            "jobbridge_findings",
            "What `jobbridge doctor` finds in the tables: problems somebody has to see to, and what is good.",
            labels=["severity"],
        )
        findings.add_metric(["problem"], len(report.bad))
        findings.add_metric(["good"], len(report.good))
        yield findings


def _of_queues(rows: Sequence[Queue], now: datetime) -> Iterator[Metric]:
    depth = GaugeMetricFamily(
        "jobbridge_queue_depth",
        f"What a worker could take now; counted to {queues.COUNTED} on the broker.",
        labels=["engine", "queue"],
    )
    oldest = GaugeMetricFamily(
        "jobbridge_queue_oldest_seconds", "How long the first of it waits.", labels=["engine", "queue"]
    )
    paused = GaugeMetricFamily("jobbridge_queue_paused", "1: no worker takes from it.", labels=["queue"])
    for row in rows:
        paused.add_metric([row.name], row.pause is not None)
        for waiting in row.waiting:
            if waiting.ready is None:
                continue  # Temporal is away: unknown is not zero
            labels = [waiting.engine.value, row.name]
            depth.add_metric(labels, waiting.ready)
            age = (now - waiting.oldest_at).total_seconds() if waiting.oldest_at and waiting.ready else 0
            oldest.add_metric(labels, max(0, age))
    yield from (depth, oldest, paused)


def _histogram(name: str, documentation: str, cells: list[Cell]) -> Metric:
    metric = HistogramMetricFamily(name, documentation, labels=["engine"])
    for engine in Engine:
        times = together(cell for cell in cells if cell.engine is engine)
        buckets = [
            ("+Inf" if bound == float("inf") else repr(bound), float(jobs)) for bound, jobs in times.up_to()
        ]
        metric.add_metric([engine.value], buckets=buckets, sum_value=times.total.total_seconds())
    return metric


def _release() -> str:
    try:
        return version("jobbridge")
    except PackageNotFoundError:  # it runs from a checkout
        return "unknown"


def metrics(context: RequestContext) -> Response:
    """Give the numbers of the whole installation, in the format that is asked for."""
    try:
        encode, media_type = choose_encoder(context.request.headers.get("accept", ""))
    except (TypeError, ValueError):  # it compares versions that are none
        encode, media_type = choose_encoder("")
    return Response(encode(Numbers(context)), media_type=media_type)


RULES = (Rule("/metrics", "metrics", metrics, Role.VIEWER, is_global=True),)
