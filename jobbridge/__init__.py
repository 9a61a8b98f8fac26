"""Celery tasks on two engines: Postgres alone, or Temporal. One jobs table for both.

Names are resolved on first use (PEP 562). Importing this module opens nothing and reads nothing; it tells kombu the
broker's URL scheme.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jobbridge.app.application import Celery
    from jobbridge.app.context import JobContext
    from jobbridge.app.jobs import job
    from jobbridge.core.retry import RetryPolicy
    from jobbridge.errors import JobBridgeError, JobCancelled

from jobbridge.broker import register as _register_broker

__version__ = "0.1.0"

__all__ = ["Celery", "JobBridgeError", "JobCancelled", "JobContext", "RetryPolicy", "job"]

_PUBLIC = {
    "Celery": "jobbridge.bootstrap",
    "job": "jobbridge.app.jobs",
    "JobContext": "jobbridge.app.context",
    "RetryPolicy": "jobbridge.core.retry",
    "JobBridgeError": "jobbridge.errors",
    "JobCancelled": "jobbridge.errors",
}


def __getattr__(name: str) -> Any:
    if name == "celery":  # what `celery -A jobbridge` looks for
        return import_module("jobbridge.bootstrap").default_app()
    try:
        module = _PUBLIC[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    return getattr(import_module(module), name)


_register_broker()
