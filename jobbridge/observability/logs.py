"""Log records that say in which job they were made, without secrets; and lines of JSON for whoever collects them."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from celery._state import get_current_worker_task

from jobbridge.app.execute.claim import run_of
from jobbridge.core.masking.values import masked, without_passwords

#: What every record has, or has from Celery and uvicorn as something else already; the rest was passed as `extra`.
_OWN = frozenset(vars(logging.makeLogRecord({}))) | {
    "message", "asctime", "taskName", "task_id", "task_name", "color_message",
}  # fmt: skip
_NOTHING = {"job_id": None, "tenant": None, "attempt": None, "engine": None, "job_type": None}
#: Ends of lines to some readers, and to JSON none; written as JSON's escapes.
_ENDS_OF_LINES = {ord(each): f"\\u{ord(each):04x}" for each in "\x85\u2028\u2029"}
TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class JobContext(logging.Filter):
    """Adds `job_id`, `tenant`, `attempt`, `engine`, `job_type`, and the ids of the trace, to records made within a job.

    What Celery's worker says of a task from outside of it, as that it was received, has the first and the last of them.
    What a record has already (by `extra`) is left as it is.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep the record, and more of it."""
        for name, value in (_NOTHING | _named_by_celery(record) | _job() | _trace()).items():
            if not hasattr(record, name):
                setattr(record, name, value)
        return True


class MaskingFormatter(logging.Formatter):
    """Writes what another formatter does, without the secrets in it: results, arguments and tracebacks have such.

    Args:
        inner: The other one.
    """

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        """Write it."""
        return without_passwords(self._inner.format(record))


class JsonFormatter(logging.Formatter):
    """Writes a record as one line of JSON: time, level, logger, event, what was added, and the traceback if any.

    Secrets are masked, by the names of what was added and by what they look like.

    Whatever is in a record, there is a line: what is no JSON is written as text, and what was added by a name of ours
    has `extra_` before it.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Write it."""
        at = datetime.fromtimestamp(record.created, UTC)
        told: dict[str, Any] = {
            "time": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": _event(record),
        }
        if record.exc_info:
            told["traceback"] = self.formatException(record.exc_info)
        if record.stack_info:
            told["stack"] = self.formatStack(record.stack_info)
        told |= {f"extra_{name}" if name in told else name: value for name, value in _added(record)}
        try:
            line = _json(masked(told))
        except (TypeError, ValueError, RecursionError):
            line = _json({name: _written(name, value) for name, value in told.items()})
        # A half of a surrogate pair cannot be encoded; as a backslash's escape it is JSON as well.
        return line.translate(_ENDS_OF_LINES).encode("utf-8", "backslashreplace").decode()


def _event(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # whatever the arguments raise when they are formatted
        return f"{_shown(record.msg)} {_shown(record.args)}"


def _added(record: logging.LogRecord) -> Iterator[tuple[str, Any]]:
    is_of_celery = _celerys(record) is not None
    for name, value in vars(record).items():
        if name in _OWN or name.startswith("_") or value is None:
            continue
        if name == "data" and is_of_celery:
            # With the arguments, in which secrets may be; the ids are in the record already.
            yield from ((each, value[each]) for each in ("runtime",) if each in value)
        else:
            yield name, value


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, default=_shown)


def _written(name: str, value: Any) -> Any:
    try:
        shown = masked({name: value})[name]
        _json(shown)
    except (TypeError, ValueError, RecursionError):  # keys that are no text, NaN, what holds itself
        return _shown(value)
    return shown


def _shown(value: object) -> str:
    try:
        return without_passwords(str(value))
    except Exception:  # whatever somebody's __str__ raises
        return f"<{type(value).__name__}>"


def configure(log_format: str, *, level: int | str = logging.INFO) -> None:
    """Set up the logging of a command of ours, to standard error; what the process has set up already is left."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(TEXT))
    _dress([handler], log_format)
    logging.basicConfig(level=level, handlers=[handler])
    if log_format == "json":
        logging.captureWarnings(True)


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
        elif not isinstance(handler.formatter, MaskingFormatter):
            handler.setFormatter(MaskingFormatter(handler.formatter or logging.Formatter()))


def _celerys(record: logging.LogRecord) -> Mapping[str, Any] | None:
    """Give what Celery adds to its own records of a task (celery 5.7, `worker/strategy.py`, `app/trace.py`)."""
    told = getattr(record, "data", None)
    is_told = record.name.startswith("celery.") and isinstance(told, Mapping) and "id" in told
    return told if is_told else None


def _named_by_celery(record: logging.LogRecord) -> dict[str, Any]:
    told = _celerys(record)
    return {} if told is None else {"job_id": told["id"], "job_type": told.get("name")}


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
