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

from jobbridge.app.execute.claim import Run
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


class Unsayable:
    """What cannot even be shown."""

    def __str__(self) -> str:
        raise RuntimeError

    __repr__ = __str__


def of_itself() -> list[Any]:
    inner: list[Any] = []
    inner.append(inner)
    return inner


@pytest.mark.parametrize(
    ("odd", "shown"),
    [
        (float("nan"), "nan"),
        ({"rate": float("inf")}, "{'rate': inf}"),
        ({(1, 2): 3}, "{(1, 2): 3}"),
        (of_itself(), "[[...]]"),
        (Unsayable(), "<Unsayable>"),
        ([Unsayable()], ["<Unsayable>"]),
        (b"\xff", "b'\\xff'"),
        (2**200, 2**200),
        ("\ud800", "\ud800"),
    ],
    ids=range(9),
)
def test_nothing_that_is_added_loses_the_line(
    logger: logging.Logger, written: io.StringIO, odd: Any, shown: Any
) -> None:
    dress(logger, "json")
    logger.info("odd", extra={"odd": odd, "plain": 1})

    written.getvalue().encode()  # a stream writes bytes
    [line] = written.getvalue().splitlines()
    told = json.loads(line, parse_constant=pytest.fail)
    assert (told["event"], told["plain"], told["odd"]) == ("odd", 1, shown)


def test_a_line_is_one_line_to_every_reader(logger: logging.Logger, written: io.StringIO) -> None:
    dress(logger, "json")
    logger.info("a\u2028b\u2029c\x85d\r\ne")

    [line] = lines(written)
    assert line["event"] == "a\u2028b\u2029c\x85d\r\ne"


def test_what_is_added_does_not_take_the_place_of_what_a_line_says(
    logger: logging.Logger, written: io.StringIO
) -> None:
    dress(logger, "json")
    logger.info("sent", extra={"level": "mine", "event": "mine", "time": "mine", "logger": "mine"})

    [line] = lines(written)
    assert (line["level"], line["event"], line["logger"]) == ("info", "sent", "shop.invoices")
    assert line["time"].startswith("20")
    assert (line["extra_level"], line["extra_event"]) == ("mine", "mine")


def test_a_message_that_does_not_fit_its_arguments_is_written_all_the_same(
    logger: logging.Logger, written: io.StringIO
) -> None:
    dress(logger, "json")
    logger.info("%d pages", "many", stack_info=True)

    [line] = lines(written)
    assert line["event"] == "%d pages ('many',)"
    assert "test_logs" in line["stack"]


def test_what_celery_says_of_a_task_names_the_job_and_not_its_arguments(written: io.StringIO) -> None:
    logger = logging.Logger("celery.worker.strategy")
    logger.addHandler(logging.StreamHandler(written))
    dress(logger, "json")
    told = {"id": "0193", "name": "invoice.send", "args": "['hunter2']", "kwargs": "{}", "runtime": 0.5}

    logger.info("Task %(name)s[%(id)s] received", told, extra={"data": told})

    [line] = lines(written)
    assert line["event"] == "Task invoice.send[0193] received"
    assert (line["job_id"], line["job_type"], line["runtime"]) == ("0193", "invoice.send", 0.5)
    assert "hunter2" not in written.getvalue()


def test_the_data_of_others_is_theirs(logger: logging.Logger, written: io.StringIO) -> None:
    dress(logger, "json")
    logger.info("sent", extra={"data": {"id": 1}, "color_message": "\x1b[1msent"})

    [line] = lines(written)
    assert line["data"] == {"id": 1}
    assert "color_message" not in line
    assert "job_id" not in line


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_secrets_are_masked_wherever_they_are_in_a_record(
    logger: logging.Logger, written: io.StringIO, log_format: str
) -> None:
    class Named:
        def __str__(self) -> str:
            return "<Named password='hun7er'>"

    dress(logger, log_format)
    told: dict[str, Any] = {"password": "hun7er", "url": "amqp://u:hun7er@host", "named": Named(), (1, 2): 3}

    try:
        raise ValueError("authorization=Bearer hun7er")
    except ValueError:
        logger.exception("with %s and %r", "passwd: hun7er", told, extra={"told": told, "api_key": "hun7er"})

    assert "hun7er" not in written.getvalue()
    assert "Traceback" in written.getvalue()
    assert "ValueError: authorization=" in written.getvalue()
