"""Handlers that fail, each in its own way."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from celery import shared_task
from celery.exceptions import Reject

from jobbridge import JobContext, RetryPolicy, job
from tests.parity.tasks import folder, note

_AT_ONCE = timedelta(milliseconds=10)


@job(
    "parity.by_kind",
    retry=RetryPolicy(
        max_attempts=2, first=_AT_ONCE, attempts={ConnectionError: 4, ConnectionResetError: 3, ValueError: 1}
    ),
)
def by_kind(ctx: JobContext, data: dict[str, Any]) -> None:
    """Fail with one after the other of these errors, and with the last one again."""
    kinds = {
        "connection": ConnectionError,
        "reset": ConnectionResetError,
        "aborted": ConnectionAbortedError,  # a ConnectionError, too
        "value": ValueError,
        "runtime": RuntimeError,
    }
    names = data["errors"]
    tries = note("by_kind")
    raise kinds[names[min(tries, len(names)) - 1]](f"try {tries}")


@job("parity.dies", retry=RetryPolicy(max_attempts=1))
def dies(ctx: JobContext, data: dict[str, Any]) -> int:
    """Fail, until its test says otherwise."""
    runs = note("dies")
    if not (folder() / "mended").exists():
        raise LookupError(f"invoice {data['invoice']} has no address {data.get('address', 'at all')}")
    return runs


@shared_task(name="parity.rejects")
def rejects() -> int:
    """Refuse its message, until its test says otherwise."""
    runs = note("rejects")
    if not (folder() / "mended").exists():
        raise Reject("nobody wants it", requeue=False)
    return runs
