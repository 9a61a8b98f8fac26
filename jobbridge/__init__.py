"""Celery tasks on two engines: Postgres alone, or Temporal. One jobs table for both.

Names are resolved on first use (PEP 562). Importing this module opens nothing and reads nothing; it tells kombu the
broker's URL scheme.
"""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jobbridge.app.application import Celery
    from jobbridge.app.execute.context import JobContext, current_job
    from jobbridge.app.execute.handlers import job
    from jobbridge.app.execute.tenancy import current_tenant, tenant_context
    from jobbridge.app.types import Handler, Result, Signature, Task
    from jobbridge.core.durable import TIMED_OUT, Snooze
    from jobbridge.core.enqueue import Outcome, SingletonPolicy
    from jobbridge.core.fanout import Child, FanOut
    from jobbridge.core.handlers import JobHandlerRegistry
    from jobbridge.core.retry import RetryPolicy
    from jobbridge.errors import (
        CalledJobEnded,
        ChildrenFailed,
        DuplicateJob,
        HandlerChanged,
        JobBridgeError,
        JobCancelled,
        NoCurrentJob,
    )
    from jobbridge.runners.batches import batch
    from jobbridge.runners.blocks import bulk, transaction
    from jobbridge.runners.events import send_event
    from jobbridge.runners.factory import JobRunnerFactory, get_job_runner
    from jobbridge.runners.handlers import (
        get_available_job_handlers,
        initialize_job_handlers_for_worker,
        register_all_job_handlers,
    )
    from jobbridge.runners.links import event_link
    from jobbridge.runners.runner import CeleryJobRunner, JobRunner, TemporalJobRunner
    from jobbridge.runners.service import JobService
    from jobbridge.runners.types import JobStatusReport, ScheduledJob, ScheduleOptions
    from jobbridge.temporal.worker.user_queues import UserQueue

    celery: Celery

from jobbridge.broker import register as _register_broker

__version__ = "0.2.0"

__all__ = [
    "TIMED_OUT",
    "CalledJobEnded",
    "Celery",
    "CeleryJobRunner",
    "Child",
    "ChildrenFailed",
    "DuplicateJob",
    "FanOut",
    "Handler",
    "HandlerChanged",
    "JobBridgeError",
    "JobCancelled",
    "JobContext",
    "JobHandlerRegistry",
    "JobRunner",
    "JobRunnerFactory",
    "JobService",
    "JobStatusReport",
    "NoCurrentJob",
    "Outcome",
    "Result",
    "RetryPolicy",
    "ScheduleOptions",
    "ScheduledJob",
    "Signature",
    "SingletonPolicy",
    "Snooze",
    "Task",
    "TemporalJobRunner",
    "UserQueue",
    "batch",
    "bulk",
    "current_job",
    "current_tenant",
    "event_link",
    "get_available_job_handlers",
    "get_job_runner",
    "initialize_job_handlers_for_worker",
    "job",
    "register_all_job_handlers",
    "send_event",
    "tenant_context",
    "transaction",
]

_PUBLIC = {
    "Celery": "jobbridge.bootstrap",
    "job": "jobbridge.app.execute.handlers",
    "current_job": "jobbridge.app.execute.context",
    "TIMED_OUT": "jobbridge.core.durable",
    "Snooze": "jobbridge.core.durable",
    "send_event": "jobbridge.runners.events",
    "HandlerChanged": "jobbridge.errors",
    "CalledJobEnded": "jobbridge.errors",
    "NoCurrentJob": "jobbridge.errors",
    "current_tenant": "jobbridge.app.execute.tenancy",
    "tenant_context": "jobbridge.app.execute.tenancy",
    "JobContext": "jobbridge.app.execute.context",
    "Handler": "jobbridge.app.types",
    "Result": "jobbridge.app.types",
    "Signature": "jobbridge.app.types",
    "Task": "jobbridge.app.types",
    "RetryPolicy": "jobbridge.core.retry",
    "JobRunner": "jobbridge.runners.runner",
    "CeleryJobRunner": "jobbridge.runners.runner",
    "TemporalJobRunner": "jobbridge.runners.runner",
    "JobRunnerFactory": "jobbridge.runners.factory",
    "get_job_runner": "jobbridge.runners.factory",
    "JobService": "jobbridge.runners.service",
    "JobStatusReport": "jobbridge.runners.types",
    "ScheduleOptions": "jobbridge.runners.types",
    "ScheduledJob": "jobbridge.runners.types",
    "UserQueue": "jobbridge.temporal.worker.user_queues",
    "batch": "jobbridge.runners.batches",
    "bulk": "jobbridge.runners.blocks",
    "event_link": "jobbridge.runners.links",
    "transaction": "jobbridge.runners.blocks",
    "Outcome": "jobbridge.core.enqueue",
    "SingletonPolicy": "jobbridge.core.enqueue",
    "JobHandlerRegistry": "jobbridge.core.handlers",
    "get_available_job_handlers": "jobbridge.runners.handlers",
    "initialize_job_handlers_for_worker": "jobbridge.runners.handlers",
    "register_all_job_handlers": "jobbridge.runners.handlers",
    "Child": "jobbridge.core.fanout",
    "FanOut": "jobbridge.core.fanout",
    "ChildrenFailed": "jobbridge.errors",
    "DuplicateJob": "jobbridge.errors",
    "JobBridgeError": "jobbridge.errors",
    "JobCancelled": "jobbridge.errors",
}


#: What 0.1.0 called otherwise. Code that is written for both releases imports it under its old name.
_FORMER = {"HostedQueue": "UserQueue"}


if not TYPE_CHECKING:  # to a type checker it would say that there is every name

    def __getattr__(name: str) -> Any:
        if name == "celery":  # what `celery -A jobbridge` looks for
            return import_module("jobbridge.bootstrap").default_app()
        if name in _FORMER:
            now = _FORMER[name]
            warnings.warn(f"jobbridge.{name} is called {now}.", DeprecationWarning, stacklevel=2)
            name = now
        try:
            module = _PUBLIC[name]
        except KeyError:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
        if module.startswith("jobbridge.runners"):
            import_module("jobbridge.bootstrap")  # wires the app that is meant when none is named
        return getattr(import_module(module), name)


_register_broker()
