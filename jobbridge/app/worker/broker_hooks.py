"""What the broker asks the application that it carries messages for: it knows nothing of jobs itself."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from jobbridge.app import signals
from jobbridge.store.jobs.open_jobs import not_begun

if TYPE_CHECKING:
    from jobbridge.app.application import Celery


class BrokerHook(partial[Any]):
    """A callable among the transport options, which `celery inspect stats` sends as JSON."""

    def __json__(self) -> str:
        return str(self.func.__qualname__)


def _held_number(app: Celery) -> int | None:
    """Give the number under which a worker that runs here holds its leases."""
    if app.presence is None or not app.shares_database_with_broker:
        return None
    return app.presence.held_number()


def _beyond_prefetch(app: Celery) -> int:
    """Give how many short jobs a worker that runs here takes beyond its prefetch count."""
    return app.settler.beyond_prefetch() if app.settler is not None else 0


def _on_delivered(app: Celery) -> None:
    """Start what a worker that runs here has just taken."""
    if app.settler is not None:
        app.settler.turn()


def _not_begun(app: Celery, headers: list[dict[str, Any]], numbers: list[int]) -> set[str]:
    """Give the ids of those messages whose jobs these workers had only taken ahead."""
    ids = [str(each["id"]) for each in headers if each.get("id")]
    return not_begun(app.database, ids, numbers)


def _purge_jobs(app: Celery, queue: str) -> int:
    from jobbridge.app.control import purge_jobs

    return purge_jobs(app, queue)


def hooks_of(app: Celery) -> dict[str, Any]:
    """Give the transport options of an application's connections."""
    return {
        "max_deliveries": app.settings.max_crashes,
        "on_dead_letter": BrokerHook(signals.on_dead_letter, app),
        "on_expired": BrokerHook(signals.on_expired, app),
        "not_begun": BrokerHook(_not_begun, app),
        "on_purge": BrokerHook(_purge_jobs, app),
        "number_of_process": BrokerHook(_held_number, app),
        "beyond_prefetch": BrokerHook(_beyond_prefetch, app),
        "on_delivered": BrokerHook(_on_delivered, app),
    }
