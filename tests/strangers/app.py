"""An app with tasks of other people's base classes: what the workers of tests/strangers serve."""

from __future__ import annotations

import os
import warnings
from typing import Any

from celery import shared_task
from celery_batches import Batches, SimpleRequest
from celery_singleton import Singleton

from jobbridge import Celery
from tests.parity.tasks import note, wait_for_file

with warnings.catch_warnings():  # it was written for an older Python
    warnings.simplefilter("ignore")
    from celery_once import AlreadyQueued, QueueOnce

__all__ = ["AlreadyQueued", "app", "make_strangers_app"]


def make_strangers_app(**options: Any) -> Celery:
    app = Celery("strangers", include=["tests.parity.tasks", "tests.strangers.app"], **options)
    app.conf.accept_content = ["json", "pickle"]
    app.conf.worker_send_task_events = app.conf.task_send_sent_event = True
    url = os.environ.get("STRANGERS_REDIS", "")
    app.conf.singleton_backend_url = url
    app.conf.ONCE = {
        "backend": "celery_once.backends.Redis",
        "settings": {"url": url, "default_timeout": 600},
    }
    return app


@shared_task(name="strangers.counted", base=Batches, flush_every=3, flush_interval=1)
def counted(requests: list[SimpleRequest]) -> None:
    """Give each how many there are in its batch, and its own argument."""
    from celery import current_app

    for each in requests:
        if each.args[0] == "bad":
            error = ValueError("bad")
            current_app.backend.mark_as_failure(each.id, error, request=each)
        else:
            current_app.backend.mark_as_done(each.id, [len(requests), each.args[0]], request=each)


@shared_task(name="strangers.only_one", base=Singleton)
def only_one(value: Any) -> Any:
    note("only_one", str(value))
    wait_for_file("go")
    return value


@shared_task(name="strangers.only_one_fails", base=Singleton)
def only_one_fails(value: Any) -> Any:
    raise ValueError(value)


@shared_task(name="strangers.once", base=QueueOnce, once={"keys": ["value"]})
def once(value: Any, other: Any = None) -> Any:
    note("once", str(value))
    wait_for_file("go")
    return value


@shared_task(
    name="strangers.once_gracefully", base=QueueOnce, once={"graceful": True, "unlock_before_run": True}
)
def once_gracefully(value: Any) -> Any:
    note("once_gracefully")
    wait_for_file("go")
    return value


app = make_strangers_app()
