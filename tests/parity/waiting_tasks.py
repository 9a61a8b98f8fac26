"""Handlers that wait for what a test sends."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from jobbridge import TIMED_OUT, JobContext, job


@job("parity.asks")
def asks(ctx: JobContext, data: dict[str, Any]) -> Any:
    """Mail a link, wait for the answer, and give it; `key`: by this key, too."""
    link = ctx.run("link", ctx.event_link, "approval")
    answer = ctx.wait_for("approval", key=data.get("key"), timeout=timedelta(days=2))
    return None if answer is TIMED_OUT else {"link": link, **answer}


@job("parity.naps")
def naps(ctx: JobContext, data: dict[str, Any]) -> str:
    ctx.sleep(timedelta(days=1))
    return "rested"
