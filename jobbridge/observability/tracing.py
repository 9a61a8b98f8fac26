"""OpenTelemetry traces: from the call that sends a job, through either engine, to its handler and what that sends.

Three kinds of spans. "send NAME" is the publish: it surrounds the app's one publish point, so that no span is left
open by a publish that fails, nor by a task that this process does not know. "process NAME" is one attempt, from
Celery's signals, which the tracer sends on both engines. "step NAME" is a part that the handler names.

The context travels in the message's headers (`traceparent`, W3C), which both engines keep: in the broker's row, in the
envelope of a workflow, in the row of a job that waits for Temporal. So a retry, the next link of a chain, a callback
and a job that the relay delivers later are in the trace of what sent them. Children of a fan-out are sent by whoever
has room for them; the headers of their parent are kept for them (`carrier`).
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from celery import signals
from celery.exceptions import Ignore, Reject, Retry
from opentelemetry import context as contexts
from opentelemetry import propagate, trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from jobbridge import __version__
from jobbridge.app.execute.claim import run_of
from jobbridge.core.envelope import HEADER, TRACE
from jobbridge.core.masking.values import without_passwords

if TYPE_CHECKING:
    from contextvars import Token

    from jobbridge.app.application import Celery

logger = logging.getLogger(__name__)

_OPEN = "jobbridge_open_span"
#: OpenTelemetry's conventions want it of each operation that failed.
_ERROR = "error.type"
_HEADERS = (TRACE, "tracestate", "baggage")
_W3C = TraceContextTextMapPropagator()
#: How long a process that ends may go on sending its last spans. Milliseconds.
_FLUSH = 3_000


class Tracer:
    """Makes the spans of one app's jobs.

    Args:
        app: Whose.
        provider: Of the spans; by default the one that the process has.
    """

    def __init__(self, app: Celery, provider: trace.TracerProvider | None = None) -> None:
        self._app = app
        self._provider = provider

    @property
    def _tracer(self) -> trace.Tracer:
        # Asked for each time, which is a look-up: the process may set its provider later than this was made.
        return trace.get_tracer("jobbridge", __version__, self._provider)

    def connect(self) -> None:
        """Attach the receivers; again is harmless. Those of a task's end go before others that the user attached."""
        for signal, receiver in (
            (signals.task_prerun, self._begin),
            (signals.task_postrun, self._end),
            (signals.task_failure, self._fail),
            (signals.task_retry, self._note_retry),
            (signals.worker_process_shutdown, self._flush),
            (signals.worker_shutdown, self._flush),
        ):
            uid = f"jobbridge.tracing.{receiver.__name__}.{id(self._app)}"
            signal.connect(receiver, weak=False, dispatch_uid=uid)

    # -- what the app tells

    @contextmanager
    def sending(
        self, name: str, headers: MutableMapping[str, Any], *, queue: str, former: str | None
    ) -> Iterator[Span]:
        """Surround the sending of a task message, and put the trace's context into its headers.

        A job that is sent again is in the trace of who does so, and has a link to where it was sent before.
        """
        with self._tracer.start_as_current_span(
            f"send {name}",
            context=self._parent_of(headers),
            kind=SpanKind.PRODUCER,
            links=_links_to(former),
            record_exception=False,  # it would be with the secrets in its message
            set_status_on_exception=False,
        ) as span:
            propagate.inject(headers)
            try:
                yield span
            except Exception as error:
                _note_error(span, error)
                raise
            finally:
                if span.is_recording():
                    span.set_attributes(_of_message(name, headers, queue=queue, operation="send"))

    @contextmanager
    def step(self, name: str, key: str | None) -> Iterator[Span]:
        """Surround a step of the job that runs."""
        with self._tracer.start_as_current_span(
            f"step {name}", record_exception=False, set_status_on_exception=False
        ) as span:
            if key is not None:
                span.set_attribute("jobbridge.step.key", key)
            try:
                yield span
            except Exception as error:
                _note_error(span, error)
                raise

    def carrier(self) -> dict[str, str]:
        """Give headers by which what is sent later, and from elsewhere, belongs to what runs now."""
        headers: dict[str, str] = {}
        propagate.inject(headers)
        return headers

    def _parent_of(self, headers: Mapping[str, Any]) -> contexts.Context | None:
        """Give the context that the sender says; within a task, where headers are handed on by Celery, what runs."""
        is_said = any(headers.get(name) for name in _HEADERS)
        if not is_said or self._app.current_worker_task is not None:
            return None
        return propagate.extract(_carried(headers))

    # -- what Celery tells

    def _begin(self, task: Any = None, **_: Any) -> None:
        if not self._is_ours(task):
            return
        request = task.request
        parent = propagate.extract(_carried({name: getattr(request, name, None) for name in _HEADERS}))
        span = self._tracer.start_span(f"process {task.name}", context=parent, kind=SpanKind.CONSUMER)
        token = contexts.attach(trace.set_span_in_context(span, parent))
        setattr(request, _OPEN, (span, token))

    def _end(self, task: Any = None, state: Any = None, retval: Any = None, **_: Any) -> None:
        opened: tuple[Span, Token[contexts.Context]] | None = getattr(
            getattr(task, "request", None), _OPEN, None
        )
        if opened is None or not self._is_ours(task):
            return
        span, token = opened
        setattr(task.request, _OPEN, None)
        if span.is_recording():
            span.set_attributes(self._of_attempt(task, state, retval))
            if state is None:
                _note_interruption(span)
        span.end()
        contexts.detach(token)

    def _fail(self, sender: Any = None, exception: Any = None, **_: Any) -> None:
        span = self._open_span(sender)
        if span is not None and isinstance(exception, BaseException):
            _note_error(span, exception)

    def _note_retry(self, sender: Any = None, reason: Any = None, **_: Any) -> None:
        span = self._open_span(sender)
        if span is not None:
            cause = getattr(reason, "exc", None) or reason
            span.add_event("retry", {"jobbridge.retry.reason": type(cause).__name__})

    def _flush(self, **_: Any) -> None:
        provider = self._provider or trace.get_tracer_provider()
        flush = getattr(provider, "force_flush", None)
        if flush is not None and not flush(_FLUSH):
            logger.warning("tracing.spans_lost")

    def _open_span(self, task: Any) -> Span | None:
        opened = getattr(getattr(task, "request", None), _OPEN, None)
        return opened[0] if opened is not None and self._is_ours(task) else None

    def _is_ours(self, task: Any) -> bool:
        return task is not None and getattr(task, "app", None) is self._app

    def _of_attempt(self, task: Any, state: Any, retval: Any) -> dict[str, str | int | bool]:
        request = task.request
        info = getattr(request, "delivery_info", None) or {}
        run = run_of(request)
        header = getattr(request, HEADER, None) or {}
        told = _of_message(
            task.name,
            {"id": request.id, HEADER: header},
            queue=str(info.get("routing_key") or ""),
            operation="process",
        )
        told["jobbridge.job.state"] = _state(state, retval)
        if run is not None:
            told["jobbridge.job.engine"] = run.engine.value
            told["jobbridge.job.tenant"] = run.key.tenant
            if run.attempt is not None:
                told["jobbridge.job.attempt"] = run.attempt
        return told


def _of_message(
    name: str, headers: Mapping[str, Any], *, queue: str, operation: str
) -> dict[str, str | int | bool]:
    """Give what a span of a message says, by OpenTelemetry's conventions for messaging and by our own names."""
    header = headers.get(HEADER) or {}
    told: dict[str, str | int | bool] = {
        "messaging.system": "jobbridge",
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
        "messaging.message.id": str(headers.get("id") or ""),
        "jobbridge.job.id": str(headers.get("id") or ""),
        "jobbridge.job.type": name,
    }
    if queue:
        told["messaging.destination.name"] = queue
        told["jobbridge.job.queue"] = queue
    for kept in ("tenant", "engine"):
        if header.get(kept):
            told[f"jobbridge.job.{kept}"] = str(header[kept])
    return told


def _state(state: Any, retval: Any) -> str:
    match retval:
        case Retry():
            return "retrying"
        case Reject():
            return "given back"
        case Ignore():
            return "ignored"
        case _:
            return str(state or "interrupted").lower()


def _note_error(span: Span, error: BaseException) -> None:
    """Record an error with its message and traceback, without secrets; never the arguments, which are the jobs' own."""
    lines = traceback.format_exception(error)
    told = {
        "exception.message": without_passwords(str(error)),
        "exception.stacktrace": without_passwords("".join(lines)),
    }
    span.record_exception(error, attributes=told)
    span.set_status(Status(StatusCode.ERROR, type(error).__name__))
    span.set_attribute(_ERROR, _type_of(error))


def _note_interruption(span: Span) -> None:
    """Mark an attempt that came to no end: its process is told to stop, by a hard time limit or from outside."""
    cause = sys.exc_info()[
        1
    ]  # Celery sends the signal while it goes up (celery 5.7, app/trace.py: `finally`)
    span.set_status(Status(StatusCode.ERROR, "interrupted"))
    span.set_attribute(_ERROR, "_OTHER" if cause is None else _type_of(cause))


def _type_of(error: BaseException) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _links_to(former: str | None) -> list[trace.Link]:
    if not former:
        return []
    extracted = _W3C.extract({TRACE: former}, contexts.Context())
    context = trace.get_current_span(extracted).get_span_context()
    return [trace.Link(context)] if context.is_valid else []


def _carried(headers: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(headers[name]) for name in _HEADERS if headers.get(name)}
