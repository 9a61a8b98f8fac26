"""Log records that say in which job they were made, and lines of JSON for whoever collects them."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from celery._state import get_current_worker_task

from jobbridge.app.execution import run_of

#: What every record has; the rest was passed as `extra`.
_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "task_id", "task_name"}
_NOTHING = {"job_id": None, "tenant": None, "attempt": None, "engine": None, "job_type": None}
TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class JobContext(logging.Filter):
    """Adds `job_id`, `tenant`, `attempt`, `engine`, `job_type`, and the ids of the trace, to records made within a job.

    What a record has already (by `extra`) is left as it is.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep the record, and more of it."""
        for name, value in (_NOTHING | _job() | _trace()).items():
            if not hasattr(record, name):
                setattr(record, name, value)
        return True


class JsonFormatter(logging.Formatter):
    """Writes a record as one line of JSON: time, level, logger, event, what was added, and the traceback if any."""

    def format(self, record: logging.LogRecord) -> str:
        """Write it."""
        at = datetime.fromtimestamp(record.created, UTC)
        told: dict[str, Any] = {
            "time": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        told |= {
            name: value
            for name, value in vars(record).items()
            if name not in _OWN and not name.startswith("_") and value is not None
        }
        if record.exc_info:
            told["traceback"] = self.formatException(record.exc_info)
        return json.dumps(told, ensure_ascii=False, default=str)


def configure(log_format: str, *, level: int | str = logging.INFO) -> None:
    """Set up the logging of a command of ours, to standard error; what the process has set up already is left."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(TEXT))
    _dress([handler], log_format)
    logging.basicConfig(level=level, handlers=[handler])


def dress(logger: logging.Logger, log_format: str) -> None:
    """Have the handlers that Celery made for a logger of workers and beat write so.

    Celery makes none where the application sets up logging itself (`setup_logging`); then that is left alone.
    """
    _dress(logger.handlers, log_format)


def _dress(handlers: Iterable[logging.Handler], log_format: str) -> None:
    for handler in handlers:
        if not any(isinstance(each, JobContext) for each in handler.filters):
            handler.addFilter(JobContext())
        if log_format == "json":
            handler.setFormatter(JsonFormatter())


def _job() -> dict[str, Any]:
    task = get_current_worker_task()
    run = run_of(task.request) if task is not None else None
    if task is None or run is None:
        return {}
    return {
        "job_id": run.task_id,
        "tenant": run.key.tenant,
        "attempt": run.attempt,
        "engine": run.engine.value,
        "job_type": task.name,
    }


def _trace() -> dict[str, str]:
    if "opentelemetry.trace" not in sys.modules:
        return {}
    from opentelemetry import trace

    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return {}
    return {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}
