"""Hard time limits that no worker can keep: its pool has no processes to kill."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobbridge.app.worker.own_process import with_hard_limits
from jobbridge.diagnosis.connections import pools_of
from jobbridge.diagnosis.findings import Check, bad, good, some

if TYPE_CHECKING:
    from jobbridge.app.application import Celery


def check_time_limits(app: Celery) -> list[Check]:
    """Tell which workers cannot stop a task whose author gave it a hard limit; nothing where nobody did."""
    limited = set(with_hard_limits(app))
    workers = [worker for worker in app.workers.alive() if limited & set(worker.tasks)]
    if not workers:
        return []
    pools = pools_of(app, workers)
    named = {
        worker.name: str(pools[worker.name].get("implementation", ""))
        for worker in workers
        if worker.name in pools
    }
    unable = sorted(name for name, pool in named.items() if "prefork" not in pool)
    if not unable:
        return [good("time limits", f"{len(named)} workers stop tasks at their hard limits")]
    return [
        bad(
            "time limits",
            f"{some(unable)} cannot stop a task at its hard limit: it is told by an exception, and may go on; "
            f"of {some(sorted(limited))}",
            "Run these workers with -P prefork, or give the tasks a soft limit only.",
        )
    ]
