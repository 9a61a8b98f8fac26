"""What the workers of the browser tests serve: tasks that do what their test tells them."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from jobbridge import JobContext, RetryPolicy, job
from tests.parity.tasks import make_app

app = make_app(include=["tests.browser.app"])


class Invoice(BaseModel):
    number: int
    note: str = ""


@job("shop.bill", retry=RetryPolicy(max_attempts=1))
def bill(ctx: JobContext, data: Invoice) -> dict[str, Any]:
    """Bill somebody; number 17 cannot be billed."""
    if data.number == 17:
        raise ValueError(f"Invoice 17 has no address. {data.note}".strip())
    with ctx.step("render") as step:
        step.result = {"pages": 2}
    return {"invoice": data.number}


@job("shop.keep", retry=RetryPolicy(max_attempts=1))
def keep(ctx: JobContext, data: dict[str, Any]) -> dict[str, Any]:
    """Give back what came."""
    return data


@job("shop.report", retry=RetryPolicy(max_attempts=1))
def report(ctx: JobContext, data: dict[str, Any]) -> str:
    """Work until the test says so, or the worker is killed; be as far as the test says."""
    folder = Path(os.environ["PARITY_FOLDER"]) / str(ctx.job_id)
    folder.mkdir(exist_ok=True)
    while not (folder / "go").exists():  # no deadline: the tests that look at it may take many minutes
        progress = folder / "progress"
        if progress.exists():
            text = progress.read_text()
            ctx.progress(int(text), 100, f"page {text} of 100")  # kept to a few writes a second by itself
        ctx.check_cancelled()
        threading.Event().wait(0.1)
    return "done"
