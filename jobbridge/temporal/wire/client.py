"""One connection to Temporal per process, made when it is first used, on a thread with an event loop of its own.

Temporal's runtime does not survive a fork, so everything is kept under the process id: a forked child makes its own and
never touches its parent's. Nor does it ever free that: the runtime would wait, for ever, for threads that only the
parent has; a web server's forked worker would never end.

Its threads must not outlive the interpreter either: what they still hand over then ends the process with SIGABRT or
SIGSEGV (temporalio/sdk-python#300). So whatever is left is closed, and freed, before the interpreter ends.
"""

from __future__ import annotations

import asyncio
import atexit
import ctypes
import functools
import gc
import logging
import os
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, TypeVar

from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.failure.v1 import Failure
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest, DescribeTaskQueueRequest
from temporalio.client import Client
from temporalio.converter import DataConverter, DefaultFailureConverter, PayloadConverter
from temporalio.runtime import Runtime, TelemetryConfig
from temporalio.service import PayloadLimitsConfig, RPCError, RPCStatusCode

from jobbridge.codec.sealing import Codec
from jobbridge.errors import ConfigurationError, EngineUnavailable
from jobbridge.postgres.on_loop import result_of
from jobbridge.settings import Settings
from jobbridge.temporal.wire.access import Access
from jobbridge.temporal.wire.payloads import sealing

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT = timedelta(seconds=5)
CALL_TIMEOUT = timedelta(seconds=10)

#: The SDK warns of a memo of more than 2 kB, in the output of whoever sends a long chain. What Temporal would refuse
#: goes by reference (`contract.PAYLOAD_LIMIT`).
_PAYLOAD_LIMITS = PayloadLimitsConfig(memo_warn_size=0)

Value = TypeVar("Value")


class TracebackFailureConverter(DefaultFailureConverter):
    """Shows the handler's own traceback in Temporal, not the one of the code that reports it."""

    def to_failure(
        self, exception: BaseException, payload_converter: PayloadConverter, failure: Failure
    ) -> None:
        super().to_failure(exception, payload_converter, failure)
        if not (text := getattr(exception, "handler_traceback", None)):
            return
        if failure.HasField("encoded_attributes"):
            told = payload_converter.from_payload(failure.encoded_attributes) | {"stack_trace": text}
            failure.encoded_attributes.CopyFrom(payload_converter.to_payload(told))
        else:
            failure.stack_trace = text


class SealedFailureConverter(TracebackFailureConverter):
    """Has messages and tracebacks in a payload, which is sealed like any other."""

    def __init__(self) -> None:
        super().__init__(encode_common_attributes=True)


DATA_CONVERTER = DataConverter(failure_converter_class=TracebackFailureConverter)


@dataclass
class _PerProcess:
    loop: asyncio.AbstractEventLoop
    thread: threading.Thread
    runtime: Runtime
    single_flight: asyncio.Lock
    client: Client | None = None
    #: The namespace was seen.
    has_namespace: bool = False
    failure: str | None = None
    failed_at: float = field(default=0.0)


class TemporalClient:
    """A synchronous face of Temporal's client.

    Args:
        settings: Address, namespace, TLS, API key, and how long a failed connection is remembered.
        identity: How the server's UI names this process.
    """

    def __init__(self, settings: Settings, *, identity: str | None = None) -> None:
        self._settings = settings
        self._identity = identity
        self._by_process: dict[int, _PerProcess] = {}
        _clients.add(self)

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        return self._here().loop

    def call(self, work: Callable[[Client], Awaitable[Value]], *, timeout: timedelta | None = None) -> Value:
        """Do `work` with the client, from any thread but the loop's own.

        Raises:
            EngineUnavailable: No connection; `certainly_not_started` is true.
            RPCError: What the server answered.
            TimeoutError: No answer in time: whether it was done is not known.
        """
        limit = CALL_TIMEOUT if timeout is None else timeout

        async def connect_and_work() -> Value:
            client = await self.connected()
            return await asyncio.wait_for(_as_coroutine(work(client)), limit.total_seconds())

        outcome: Value = result_of(self.submit(connect_and_work()))
        return outcome

    def submit(self, work: Coroutine[Any, Any, Value]) -> Future[Value]:
        """Start a coroutine on the loop, from any thread."""
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    async def connected(self, *, ignore_failure: bool = False) -> Client:
        """Give the client; on the loop only. Callers that come while it connects share the one attempt.

        Args:
            ignore_failure: Try again although the last attempt failed a moment ago.

        Raises:
            EngineUnavailable: It cannot be reached, or could not be within the last
                JOB_RUNNER_INIT_FAILURE_BACKOFF_MS.
        """
        here = self._here()
        async with here.single_flight:
            if here.client is None:
                failure = None if ignore_failure else self._remembered(here)
                if failure is not None:
                    raise failure
                here.client = await self._connect(here)
            return here.client

    @functools.cached_property
    def access(self) -> Access:
        """How the server is reached.

        Raises:
            ConfigurationError: A setting cannot work. Asked again next time: a file may have been corrected.
        """
        return Access.of(self._settings)

    def check_namespace(self) -> None:
        """Ask, once per process, whether the server has the namespace; where it does not answer, nothing is known.

        Raises:
            ConfigurationError: It says that there is none.
        """
        here = self._here()
        if here.has_namespace or self._remembered(here) is not None:
            return
        try:
            self.call(_describe_namespace)
        except (EngineUnavailable, TimeoutError):
            return  # the next who asks hears it, and says so
        except RPCError as error:
            if error.status in (RPCStatusCode.NOT_FOUND, RPCStatusCode.INVALID_ARGUMENT):
                raise ConfigurationError(
                    f"Temporal at {self.access.target} has no namespace {self.access.namespace!r}.",
                    hint="Correct TEMPORAL_NAMESPACE, or make the namespace.",
                ) from error
            return
        here.has_namespace = True

    async def pollers(self, client: Client, task_queue: str) -> list[str]:
        """Name the workers that took tasks from this queue lately, as they call themselves."""
        request = DescribeTaskQueueRequest(
            namespace=client.namespace,
            task_queue=TaskQueue(name=task_queue),
            task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY,
        )
        answer = await client.workflow_service.describe_task_queue(request)
        return sorted({poller.identity for poller in answer.pollers})

    def known_failure(self) -> EngineUnavailable | None:
        """Give the last failure, if it was within JOB_RUNNER_INIT_FAILURE_BACKOFF_MS. Asks nobody."""
        here = self._by_process.get(os.getpid())
        return None if here is None else self._remembered(here)

    def note_failure(self, failure: str | None) -> None:
        """Remember that a connected server does not answer; None: it did. The connection is kept."""
        here = self._here()
        here.failure, here.failed_at = failure, time.monotonic()

    def close(self) -> None:
        """Drop this process's connection and its thread. The next use makes new ones."""
        here = self._by_process.pop(os.getpid(), None)
        if here is not None:
            _stop_loop(here)

    def _here(self) -> _PerProcess:
        pid = os.getpid()
        here = self._by_process.get(pid)
        if here is None:
            # No lock, which a fork could copy while it is held.
            made = _start_loop()
            here = self._by_process.setdefault(pid, made)
            if here is not made:
                _stop_loop(made)
        return here

    def _remembered(self, here: _PerProcess) -> EngineUnavailable | None:
        failure = here.failure
        backoff = self._settings.init_failure_backoff.total_seconds()
        if failure is None or time.monotonic() - here.failed_at >= backoff:
            return None
        return _unavailable(failure)

    def _data_converter(self) -> DataConverter:
        codec = Codec.of(self._settings.encryption_text())
        if not codec:  # the SDK looks at each payload for a codec
            return DATA_CONVERTER
        return sealing(replace(DATA_CONVERTER, failure_converter_class=SealedFailureConverter), codec)

    async def _connect(self, here: _PerProcess) -> Client:
        access = self.access
        try:
            client = await asyncio.wait_for(
                Client.connect(
                    access.target,
                    namespace=access.namespace,
                    api_key=access.api_key,
                    tls=access.tls,
                    data_converter=self._data_converter(),
                    identity=self._identity,
                    payload_limits=_PAYLOAD_LIMITS,
                    runtime=here.runtime,
                ),
                CONNECT_TIMEOUT.total_seconds(),
            )
        except (RuntimeError, OSError, ValueError, RPCError, TimeoutError) as error:
            # The SDK raises a bare RuntimeError when it cannot connect (temporalio 1.35, service.py).
            reason = str(error).splitlines()[0] if str(error) else "no answer in time"
            here.failure, here.failed_at = (
                f"Temporal at {access.target} cannot be reached: {reason}",
                time.monotonic(),
            )
            raise _unavailable(here.failure) from error
        here.failure = None
        return client


def is_unreachable(error: RPCError) -> bool:
    """Whether the server, and not the request, is the trouble."""
    return error.status in {
        RPCStatusCode.UNAVAILABLE,
        RPCStatusCode.DEADLINE_EXCEEDED,
        RPCStatusCode.CANCELLED,
        RPCStatusCode.UNKNOWN,
        RPCStatusCode.INTERNAL,
        RPCStatusCode.RESOURCE_EXHAUSTED,
        RPCStatusCode.ABORTED,
    }


async def is_found(asked: Awaitable[object]) -> bool:
    """Await it; False: Temporal says that there is no such thing."""
    try:
        await asked
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            return False
        raise
    return True


def unavailable(message: str, *, certainly_not_started: bool, hint: str = "") -> EngineUnavailable:
    """Make the error that says whether the job may run there all the same."""
    error = EngineUnavailable(message, hint=hint)
    error.certainly_not_started = certainly_not_started
    return error


def _unavailable(message: str) -> EngineUnavailable:
    return unavailable(message, certainly_not_started=True)


async def _describe_namespace(client: Client) -> None:
    await client.workflow_service.describe_namespace(DescribeNamespaceRequest(namespace=client.namespace))


async def _as_coroutine(awaitable: Awaitable[Value]) -> Value:
    return await awaitable


_clients: weakref.WeakSet[TemporalClient] = weakref.WeakSet()
#: Of this process, until they are freed: also those that are closed, and wait for the garbage collector.
_runtimes: weakref.WeakSet[Runtime] = weakref.WeakSet()


#: Whether this process has had a runtime of its own.
_has_had_one = False
#: Whether a parent of this process has had one. A thread of the SDK's that ends in such a child is sometimes aborted
#: by the C library (temporalio 1.35 alone does it, too: in six of 22 runs that freed a runtime), so there no runtime
#: is ever freed. Everywhere else it must be: threads that live when the interpreter ends abort, too.
_inherits_one = False


def _let_go_of_inherited() -> None:
    global _has_had_one, _inherits_one
    _inherits_one = _inherits_one or _has_had_one
    _has_had_one = False
    for runtime in list(_runtimes):
        _never_free(runtime)
    _runtimes.clear()


def _never_free(runtime: Runtime) -> None:
    # A reference that nobody has: it holds where a global variable does not, at the end of the interpreter.
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(runtime))


def _free_all() -> None:
    for client in list(_clients):
        client.close()
    if _runtimes:
        gc.collect()  # the SDK's objects refer to each other; the last reference joins the runtime's threads


os.register_at_fork(after_in_child=_let_go_of_inherited)
atexit.register(_free_all)


def _start_loop() -> _PerProcess:
    global _has_had_one
    _has_had_one = True
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=_run_loop, args=(loop,), name="jobbridge-temporal", daemon=True)
    runtime = Runtime(telemetry=TelemetryConfig())
    if _inherits_one:
        _never_free(runtime)
    else:
        _runtimes.add(runtime)
    here = _PerProcess(loop=loop, thread=thread, runtime=runtime, single_flight=asyncio.Lock())
    thread.start()
    return here


def _stop_loop(here: _PerProcess) -> None:
    here.loop.call_soon_threadsafe(here.loop.stop)
    if threading.current_thread() is not here.thread:
        here.thread.join(timeout=5)


def _run_loop(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        for task in (left := asyncio.all_tasks(loop)):
            task.cancel()
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        loop.close()
