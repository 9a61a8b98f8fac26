"""Ours and Celery's: one program, whose only difference is the class of the app, the broker and the results."""

from __future__ import annotations

import os
from typing import Any

import celery

from benchmarks.apps import tasks

SYSTEM = os.environ["BENCH_SYSTEM"]
IS_OURS = SYSTEM.startswith("jobbridge")


def _make_app() -> Any:
    if IS_OURS:
        from jobbridge import Celery  # not by the others, whose memory and start are measured, too

        return Celery("bench")  # nothing is set: this is measured as it comes
    app = celery.Celery("bench", broker=os.environ["BENCH_BROKER"], backend=os.environ["BENCH_RESULTS"])
    # As safe as ours: a job is acknowledged when it has ended.
    app.conf.update(task_acks_late=True, task_reject_on_worker_lost=True, worker_prefetch_multiplier=4)
    app.conf.broker_connection_retry_on_startup = True
    if SYSTEM == "celery_rabbitmq_confirm":
        app.conf.broker_transport_options = {"confirm_publish": True}
    return app


app = _make_app()
#: What only has to run: Celery's keep no result of it. Ours has its row, or none.
_NOTE: dict[str, Any] = {"ignore_result": True}
if IS_OURS:
    _NOTE = {"track": False, "ignore_result": True} if SYSTEM == "jobbridge_untracked" else {}

note = app.task(name="note", **_NOTE)(tasks.note)
echo = app.task(name="echo")(tasks.echo)
total = app.task(name="total")(tasks.total)
