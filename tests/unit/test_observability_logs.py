"""Log records say in which job they were made; lines of JSON can be read by machines whatever is in them."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from celery._state import _task_stack  # type: ignore[attr-defined]  # missing in the stubs
from opentelemetry.sdk.trace import TracerProvider

from jobbridge.app.execution import Run
from jobbridge.core.keys import Engine
from jobbridge.observability.logs import TEXT, dress
from tests.job_events import new_key


@pytest.fixture
def written() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def logger(written: io.StringIO) -> Iterator[logging.Logger]:
    logger = logging.Logger("shop.invoices")
    handler = logging.StreamHandler(written)
    handler.setFormatter(logging.Formatter(TEXT + " job=%(job_id)s"))
    logger.addHandler(handler)
    yield logger
    logger.removeHandler(handler)


@contextmanager
def running(run: Run) -> Iterator[None]:
    class Request:
        called_directly = False
        jobbridge_run = run

    class Task:
        name = "invoice.send"
        request = Request()

    _task_stack.push(Task())
    try:
        yield
    finally:
        _task_stack.pop()


def run() -> Run:
    key = new_key()
    return Run(key=key, task_id=str(key.job_id), delivery=None, engine=Engine.TEMPORAL, retries=0, attempt=2)


def lines(written: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in written.getvalue().splitlines()]


def test_a_line_says_in_which_job_and_trace_it_was_made(logger: logging.Logger, written: io.StringIO) -> None:
    dress(logger, "json")
    mine = run()
    with running(mine), TracerProvider().get_tracer("t").start_as_current_span("process") as span:
        logger.info("invoice.rendered", extra={"pages": 3})
    logger.info("outside")

    inside, outside = lines(written)
    context = span.get_span_context()
    assert inside.items() >= {
        "event": "invoice.rendered", "level": "info", "logger": "shop.invoices", "pages": 3,
        "job_id": mine.task_id, "tenant": mine.key.tenant, "attempt": 2, "engine": "temporal",
        "job_type": "invoice.send", "trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}",
    }.items()  # fmt: skip
    assert not {"job_id", "tenant", "trace_id"} & outside.keys()


def test_text_stays_text_and_may_name_the_job(logger: logging.Logger, written: io.StringIO) -> None:
    dress(logger, "text")
    mine = run()
    with running(mine):
        logger.info("rendered")

    assert f"INFO shop.invoices: rendered job={mine.task_id}" in written.getvalue()


def test_what_a_record_says_itself_is_kept(logger: logging.Logger, written: io.StringIO) -> None:
    dress(logger, "json")
    with running(run()):
        logger.info("reaper.freed", extra={"job_id": "another one"})

    assert lines(written)[0]["job_id"] == "another one"


def test_a_line_is_one_line_with_its_traceback_and_odd_values(
    logger: logging.Logger, written: io.StringIO
) -> None:
    dress(logger, "json")
    dress(logger, "json")  # Celery may set its loggers up more than once
    try:
        raise ValueError("two\nlines")
    except ValueError:
        logger.exception("failed %s", "é\n", extra={"odd": {1, 2}, "at": object()})

    (line,) = lines(written)
    assert line["event"] == "failed é\n"
    assert "ValueError: two\nlines" in line["traceback"]
    assert line["odd"] in ("{1, 2}", "{2, 1}")
