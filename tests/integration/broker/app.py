"""A plain Celery app, without anything of jobbridge but the broker. Tasks write what happens into a table."""

from __future__ import annotations

import os
import time
from typing import Any

import psycopg
from celery import Celery

from jobbridge.broker import register

register()

app = Celery("broker_tests", broker=os.environ.get("JOBBRIDGE_TEST_BROKER", "jobbridge+postgresql://"))
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_ignore_result=True,
    broker_connection_retry_on_startup=True,
    worker_cancel_long_running_tasks_on_connection_loss=False,
    worker_send_task_events=True,
    broker_transport_options={"max_deliveries": 3},
)


def note(text: str, event: str) -> None:
    url = os.environ["JOBBRIDGE_TEST_BROKER"].removeprefix("jobbridge+")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO notes (text, event, pid) VALUES (%s, %s, %s)", [text, event, os.getpid()]
        )


@app.task
def nothing() -> None:
    pass


@app.task
def work(text: str, seconds: float = 0) -> None:
    note(text, "started")
    if seconds:
        time.sleep(seconds)
    note(text, "ended")


@app.task
def count_one(text: str) -> None:
    note(text, "ended")


@app.task
def first_then(text: str) -> None:
    note(text, "ended")
    work.delay(f"after {text}")


@app.task(bind=True)
def crash(self: Any, text: str) -> None:
    """End the worker, and not only the pool's child."""
    note(text, "started")
    os.kill(os.getppid() if os.environ.get("JOBBRIDGE_TEST_POOL") == "prefork" else os.getpid(), 9)
    time.sleep(60)
