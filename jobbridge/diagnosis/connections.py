"""How many connections the installation may come to open, against what Postgres allows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, LiteralString

from jobbridge.core.keys import Engine
from jobbridge.diagnosis.findings import Check

if TYPE_CHECKING:
    from jobbridge.app.application import Celery
    from jobbridge.store.workers.workers import WorkerRow

#: Of a worker itself: takes messages, answers control, is present, looks after jobs, and two for bookkeeping.
PER_WORKER: Final = 6
#: Where a pool of processes runs jobs of CE: starts and ends.
PER_SETTLER: Final = 1
#: Its relay, and its reconciler of schedules.
PER_TEMPORAL_WORKER: Final = PER_WORKER + 2
#: Of whatever runs one job at a time: bookkeeping, and bookkeeping within a transaction; beside that it may publish.
PER_SLOT: Final = 2
#: A beat listens, does bookkeeping and publishes. A dashboard's are those of its threads, and one that listens.
PER_BEAT: Final = 3

#: Seconds to wait for what workers say of their pools.
_PATIENCE = 1.0

# `reserved_connections` is new in Postgres 16.
_COUNT: LiteralString = """
SELECT current_setting('max_connections')::int
        - current_setting('superuser_reserved_connections')::int
        - coalesce(current_setting('reserved_connections', true)::int, 0),
    count(*) FILTER (WHERE application_name LIKE %(product)s || ' %%'),
    count(*) FILTER (WHERE application_name NOT LIKE %(product)s || ' %%'),
    count(*) FILTER (WHERE application_name LIKE %(product)s || ' beat schedules'),
    count(*) FILTER (WHERE application_name LIKE %(product)s || '%% live')
FROM pg_stat_activity
WHERE backend_type = 'client backend'
"""


def check_connections(app: Celery) -> Check:
    """Add up what workers, beats and dashboards may open."""
    target = app.database.target
    product = target.parameters.get("application_name", "jobbridge")
    row = app.database.run(lambda own: own.execute(_COUNT, {"product": product}).fetchone())
    assert row is not None
    allowed, ours, others, beats, dashboards = row
    workers = app.workers.alive()
    pools = pools_of(app, workers)
    may_open = sum(of_worker(worker.engine, pools.get(worker.name), app) for worker in workers)
    may_open += beats * PER_BEAT + dashboards * (app.database.most + 1)
    silent = len([worker for worker in workers if worker.name not in pools])
    found = (
        f"{len(workers)} workers, {beats} beats and {dashboards} dashboards may open {may_open} connections"
    )
    found += f" ({silent} of the workers did not say how many jobs they run at a time)" if silent else ""
    found += f"; open now are {ours} of ours and {others} of others, of {allowed} that Postgres allows"
    return Check(
        name="connections",
        is_good=max(may_open, ours) + others <= allowed,
        found=found,
        hint="Raise max_connections in Postgres, or run fewer workers or a lower --concurrency.",
    )


def of_worker(engine: Engine, pool: Mapping[str, Any] | None, app: Celery) -> int:
    """Tell how many connections a worker may open.

    Args:
        engine: Whose messages it takes.
        pool: What Celery's `inspect stats` says of its pool; None if it did not answer: then it counts as one slot.
        app: Whose senders share so many broker connections in one process.
    """
    slots = int((pool or {}).get("max-concurrency") or 1)
    has_processes = "processes" in (pool or {})
    publishers = slots if has_processes else min(slots, app.conf.broker_pool_limit or slots)
    itself = PER_TEMPORAL_WORKER if engine is Engine.TEMPORAL else PER_WORKER
    if has_processes and engine is Engine.CELERY:
        itself += PER_SETTLER
    return itself + slots * PER_SLOT + publishers


def pools_of(app: Celery, workers: Sequence[WorkerRow]) -> dict[str, Mapping[str, Any]]:
    """Give what these workers say of their pools, by the workers' names; of those that answer."""
    if not workers:
        return {}
    try:
        told = app.control.inspect(timeout=_PATIENCE, limit=len(workers)).stats() or {}
    except Exception:  # whatever a transport raises: the check of the broker says what
        return {}
    return {name: stats.get("pool") or {} for name, stats in told.items()}
