"""The app whose jobs are moved: its tasks write into a ledger that they ran."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from celery import shared_task

from jobbridge import TIMED_OUT, Celery, current_job


def note(name: str) -> int:
    """Append a line to the ledger's page of that name; give the number of lines."""
    path = Path(os.environ["LEDGER"]) / name
    with path.open("a") as file:
        file.write("x\n")
    return len(path.read_text()) // 2


@shared_task(name="cutover.run")
def run_once(name: str) -> str:
    note(name)
    return name


@shared_task(name="cutover.retry", bind=True, max_retries=3)
def retry_once(self: Any, name: str, seconds: float) -> int:
    tries = note(name)
    if tries == 1:
        raise self.retry(countdown=seconds)
    return int(self.request.retries)


@shared_task(name="cutover.gather")
def gather(names: list[str], name: str) -> str:
    note(name)
    return "+".join(sorted(names))


@shared_task(name="cutover.follow")
def follow(before: str, name: str) -> str:
    note(name)
    return f"{before}>{name}"


@shared_task(name="cutover.nap")
def nap(name: str, seconds: float) -> str:
    ctx = current_job()
    ctx.run("first", note, name)
    ctx.sleep(seconds)
    note(f"{name} went on")
    return name


@shared_task(name="cutover.ask")
def ask(name: str, timeout: float | None = None) -> Any:
    ctx = current_job()
    ctx.run("first", note, name)
    answer = ctx.wait_for("answer", timeout=timeout)
    note(f"{name} went on")
    return "timed out" if answer is TIMED_OUT else answer


@shared_task(name="cutover.call")
def call(name: str) -> Any:
    ctx = current_job()
    ctx.run("first", note, name)
    answer = ctx.call(ask, f"{name}'s child")
    note(f"{name} went on")
    return answer


app = Celery("cutover")
app.conf.accept_content = ["json", "pickle"]
