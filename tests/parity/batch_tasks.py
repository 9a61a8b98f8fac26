"""Tasks with strategies of their own, as celery-batches and users have them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery import Task, shared_task, signals
from celery._state import _task_stack  # type: ignore[attr-defined]  # missing in the stubs
from celery.app.task import Context
from celery.worker.request import create_request_cls

from tests.parity.result_tasks import SimpleRequest


def apply_batch(task: Any, args: Any) -> Any:
    """As celery_batches/trace.py (0.11) does: the task is called directly, with a request of its own."""
    _task_stack.push(task)
    task.request_stack.push(Context(loglevel=0, logfile=None))
    try:
        return task(*args)
    except Exception:
        return None
    finally:
        _task_stack.pop()
        task.request_stack.pop()


class Batches(Task):
    """As celery_batches (0.11), without its ETA."""

    abstract = True
    typing = False
    flush_every = 2
    flush_interval = 0.5

    def __init__(self) -> None:
        self._buffer: list[Any] = []
        self._timer: Any = None

    def Strategy(self, task: Any, app: Any, consumer: Any) -> Callable[..., None]:  # type: ignore[override]  # noqa: N802  (Celery's)
        self._pool = consumer.pool
        make = create_request_cls(
            task.Request if isinstance(task.Request, type) else _symbol(task.Request),
            task, consumer.pool, consumer.hostname, consumer.event_dispatcher, app=app,
        )  # fmt: skip

        def on_message(message: Any, body: Any, ack: Any, reject: Any, callbacks: Any, **_: Any) -> None:
            request = make(
                message, on_ack=ack, on_reject=reject, app=app, hostname=consumer.hostname, task=task,
                body=message.body, headers=message.headers, decoded=False, utc=True,
                eventer=consumer.event_dispatcher, connection_errors=consumer.connection_errors,
            )  # fmt: skip
            self._buffer.append(request)
            signals.task_received.send(sender=consumer, request=request)
            if self._timer is None:
                self._timer = consumer.timer.call_repeatedly(self.flush_interval, self._flush_all)
            if len(self._buffer) >= self.flush_every:
                self._flush_all()

        return on_message

    def flush(self, requests: list[Any]) -> None:
        simple = []
        for each in requests:
            args, kwargs, _ = each._payload
            told = SimpleRequest(each.id)
            told.args, told.kwargs, told.request_dict = args, kwargs, each.request_dict
            told.delivery_info, told.hostname = each.delivery_info, each.hostname
            simple.append(told)

        def acknowledge(_: Any) -> None:
            for each in requests:
                each.acknowledge()

        self._pool.apply_async(apply_batch, (self, (simple,)), callback=acknowledge)

    def _flush_all(self) -> None:
        requests, self._buffer[:] = list(self._buffer), []
        if requests:
            self.flush(requests)


def _symbol(name: str) -> Any:
    from celery.utils.imports import symbol_by_name

    return symbol_by_name(name)


@shared_task(name="parity.batch", base=Batches, bind=True)
def batch(self: Any, requests: list[Any]) -> None:
    """Give each its argument doubled; fail for all if one says so, or for that one, and leave one without a word."""
    if any(each.args[0] == "fail" for each in requests):
        raise ValueError("this batch fails")
    for each in requests:
        if each.args[0] == "bad":
            self.backend.mark_as_failure(each.id, ValueError("this one fails"), request=each)
        elif each.args[0] != "silent":
            self.backend.mark_as_done(each.id, each.args[0] * 2, request=each)


class Swallows(Task):
    """Its strategy deals with each message by itself."""

    abstract = True

    def Strategy(self, task: Any, app: Any, consumer: Any) -> Callable[..., None]:  # type: ignore[override]  # noqa: N802  (Celery's)
        make = create_request_cls(
            task.Request if isinstance(task.Request, type) else _symbol(task.Request),
            task, consumer.pool, consumer.hostname, consumer.event_dispatcher, app=app,
        )  # fmt: skip

        def on_message(message: Any, body: Any, ack: Any, reject: Any, callbacks: Any, **_: Any) -> None:
            make(
                message, on_ack=ack, on_reject=reject, app=app, hostname=consumer.hostname, task=task,
                body=message.body, headers=message.headers, decoded=False, utc=True,
                eventer=consumer.event_dispatcher, connection_errors=consumer.connection_errors,
            ).acknowledge()  # fmt: skip

        return on_message


@shared_task(name="parity.swallowed", base=Swallows)
def swallowed() -> None:
    raise AssertionError("its strategy never runs it")
