"""The test kit for those who use JobBridge: see docs/testing.md.

In comes an application and a test; out come jobs that run inline, on Celery or on Temporal, and questions about them.
Names are resolved on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jobbridge.testing.active import assert_enqueued, clock, drain, fail_next, refute_enqueued
    from jobbridge.testing.cases import JobBridgeMixin, JobBridgeTestCase
    from jobbridge.testing.engines import opened, running
    from jobbridge.testing.kit import JobFailed, Jobs
    from jobbridge.testing.records import Job
    from jobbridge.testing.servers import Servers

__all__ = [
    "Job",
    "JobBridgeMixin",
    "JobBridgeTestCase",
    "JobFailed",
    "Jobs",
    "Servers",
    "assert_enqueued",
    "clock",
    "drain",
    "fail_next",
    "opened",
    "refute_enqueued",
    "running",
]

_PUBLIC = {
    "Job": "records",
    "JobBridgeMixin": "cases",
    "JobBridgeTestCase": "cases",
    "JobFailed": "kit",
    "Jobs": "kit",
    "Servers": "servers",
    "assert_enqueued": "active",
    "clock": "active",
    "drain": "active",
    "fail_next": "active",
    "opened": "engines",
    "refute_enqueued": "active",
    "running": "engines",
}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name not in _PUBLIC:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)
