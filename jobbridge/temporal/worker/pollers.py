"""What Celery's worker sees as its task consumer: Temporal's pollers, one per queue.

All of Temporal runs on one thread beside the worker's own: the client, the pollers, the workflows' code and the
activities. It starts after the pool has forked; children that are forked later never use it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from celery.bootsteps import RUN  # type: ignore[attr-defined]  # not in the stubs
from celery.worker import state as worker_state
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.client import Client
from temporalio.service import RPCError, ServiceClient
from temporalio.worker import UnsandboxedWorkflowRunner, Worker
from temporalio.worker.workflow_sandbox import SandboxRestrictions

from jobbridge import __version__
from jobbridge.errors import EngineUnavailable
from jobbridge.temporal.deliver.delivery import task_queue_for
from jobbridge.temporal.wire.client import is_found
from jobbridge.temporal.worker.activities import JobActivities
from jobbridge.temporal.workflows.generic_job import GenericJobWorkflow

if TYPE_CHECKING:
    from jobbridge.app.application import Celery
    from jobbridge.temporal.wire.client import TemporalClient
    from jobbridge.temporal.worker.bridge import WorkerHost

logger = logging.getLogger(__name__)

#: A warm shutdown waits for jobs as Celery does: as long as they take.
FOREVER = timedelta(days=3650)
#: So that heartbeats reach the server as often as they are made, and a cancellation comes back with them.
HEARTBEAT_THROTTLE = timedelta(seconds=1)
MAX_BACKOFF = 30.0
#: For workflows of users. Temporal imports the modules of a workflow anew for each one, unless it is told to take them
#: as they are: of ours that took 10 ms of processor time.
SANDBOX = SandboxRestrictions.default.with_passthrough_modules("jobbridge")
#: Our own workflow runs as it is: what the sandbox does besides took 3 of a job's 13 ms in the worker. It keeps nothing
#: in its module, and imports nothing that is not deterministic; tests replay recorded histories within the sandbox.
OWN_RUNNER = UnsandboxedWorkflowRunner()
#: How long the last reports to Temporal may take once nothing runs any more.
REPORT_TIMEOUT = timedelta(seconds=10)


#: Seconds between two looks whether there is a namespace now.
NAMESPACE_PAUSE = 1.0
_NO_NAMESPACE = (
    "Temporal has no namespace {0!r}: set TEMPORAL_NAMESPACE, or make it "
    "(`temporal operator namespace create --namespace {0}`)."
)


async def has_namespace(client: Client) -> bool:
    """Ask for the namespace: an SDK worker that fails on it stays registered with the client, and keeps others out."""
    request = DescribeNamespaceRequest(namespace=client.namespace)
    return await is_found(client.workflow_service.describe_namespace(request))


async def another(client: Client) -> Client:
    """Connect a client like that one: the SDK lets each have one worker of a task queue."""
    service = await ServiceClient.connect(client.service_client.config)
    config = client.config()
    config["service_client"] = service
    return Client(**config)


class Poller:
    """One of Temporal's workers, and its replacement whenever it fails."""

    def __init__(
        self,
        client: TemporalClient,
        task_queue: str,
        make: Callable[[Client], Worker],
        *,
        has_own_client: bool = False,
    ) -> None:
        self._client = client
        self._task_queue = task_queue
        self._make = make
        self._has_own_client = has_own_client
        self._worker: Worker | None = None
        self._stopped = asyncio.Event()
        self._failure = "Temporal has not answered yet."
        self.is_running = asyncio.Event()

    @property
    def state(self) -> str:
        """Tell whether it polls, and if not, why."""
        return "polling" if self.is_running.is_set() else self._failure

    async def run(self) -> None:
        """Poll until `stop`; returns when the last activity has reported."""
        pause = 1.0
        while not self._stopped.is_set():
            began = time.monotonic()
            try:
                client = await self._client.connected(ignore_failure=True)
                if self._stopped.is_set():
                    return
                if not await has_namespace(client):
                    pause = NAMESPACE_PAUSE
                    raise EngineUnavailable(_NO_NAMESPACE.format(client.namespace), hint="")
                self._worker = self._make(await another(client) if self._has_own_client else client)
                await self._run_worker(self._worker)
            except EngineUnavailable as error:
                self._failure = str(error)
                logger.error("%s Trying again in %.0f seconds.", error, pause)
            except Exception as error:  # whatever ends a poller must not end the worker
                self._failure = reason = error.message if isinstance(error, RPCError) else repr(error)
                logger.error(
                    "Polling the task queue %r failed: %s. Trying again in %.0f seconds.",
                    self._task_queue,
                    reason,
                    pause,
                )
            self.is_running.clear()
            if not self._stopped.is_set():
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._stopped.wait(), pause)
                pause = 1.0 if time.monotonic() - began > MAX_BACKOFF else min(pause * 2, MAX_BACKOFF)

    async def _run_worker(self, worker: Worker) -> None:
        async def note_running() -> None:
            # The worker checks its namespace first, and fails there when it is wrong.
            while not worker.is_running:
                await asyncio.sleep(0.05)
            await asyncio.sleep(0.1)
            self.is_running.set()

        noting = asyncio.create_task(note_running())
        try:
            await worker.run()
        finally:
            noting.cancel()

    async def stop(self) -> None:
        self._stopped.set()
        if self._worker is not None and self._worker.is_running:
            await self._worker.shutdown()


class TemporalTaskConsumer:
    """Stands where Celery's worker expects kombu's consumer of its task queues.

    Has what Celery's event loop, remote control and bootsteps use of it (celery 5.7, worker/loops.py,
    worker/consumer/tasks.py, worker/control.py).
    """

    def __init__(
        self,
        app: Celery,
        consumer: Any,
        host: WorkerHost,
        client: TemporalClient,
        *,
        concurrency: int,
    ) -> None:
        self._app = app
        self._consumer = consumer
        self._host = host
        self._client = client
        self._concurrency = concurrency
        #: Coroutines that run beside the pollers from when Temporal first answered.
        self.services: Sequence[Callable[[], Coroutine[Any, Any, None]]] = ()
        self.executor = ThreadPoolExecutor(max_workers=4, thread_name_prefix="jobbridge-books")
        self._queues: dict[str, Any] = {queue.name: queue for queue in app.amqp.queues.consume_from.values()}
        self._pollers: dict[str, tuple[Poller, Future[None]]] = {}
        #: Beside those, when the pool has grown: queue, and for how many jobs.
        self._more: list[tuple[str, int, Poller, Future[None]]] = []
        self._leaving: list[Future[None]] = []
        self._running_services: list[Future[None]] = []
        self._has_started = False

    # -- what Celery's worker uses

    @property
    def on_message(self) -> Callable[[Any], None] | None:
        return self._host.on_message

    @on_message.setter
    def on_message(self, handler: Callable[[Any], None]) -> None:
        self._host.on_message = handler

    @property
    def queues(self) -> list[Any]:
        return list(self._queues.values())

    def consuming_from(self, queue: Any) -> bool:
        return getattr(queue, "name", queue) in self._queues

    def add_queue(self, queue: Any) -> Any:
        self._queues[queue.name] = queue
        return queue

    def consume(self, no_ack: bool | None = None) -> None:
        """Poll for all queues; the first time, only returns when Temporal answered for each."""
        for name in self._queues:
            if name not in self._pollers:
                self._pollers[name] = self._start(name)
        if not self._has_started:
            self._wait_for_temporal()
            self._running_services = [self._client.submit(service()) for service in self.services]
            self._has_started = True
            if self._app.presence is not None:
                self._app.presence.watchdog.watch("temporal", self._client.loop.call_soon_threadsafe)

    def cancel_by_queue(self, queue: str) -> None:
        """Take nothing more from that queue; what runs goes on."""
        self._queues.pop(queue, None)
        entry = self._pollers.pop(queue, None)
        if entry is not None:
            self._stop(*entry)
        for more in [each for each in self._more if each[0] == queue]:
            self._stop_more(more)

    def qos(self, **_: Any) -> None:
        """Do nothing: how much is taken at a time is the pollers' concurrency."""

    def resize(self, change: int) -> None:
        """Take so many jobs more at a time, or fewer, of each queue: the pool has grown or shrunk.

        A worker of the SDK has its number for life, so what is more has one of its own. Where the pool is smaller than
        it was at the start, jobs wait for it in this worker.
        """
        self._concurrency = max(1, self._concurrency + change)
        if change > 0:
            for queue in self._pollers:
                self._more.append((queue, change, *self._start(queue, more=change)))
            return
        for queue in list(self._pollers):
            left = -change
            for more in [each for each in reversed(self._more) if each[0] == queue]:
                if more[1] <= left:
                    left -= more[1]
                    self._stop_more(more)

    def cancel(self) -> None:
        """Take nothing more when the worker stops. Called, too, when the control plane is lost: that is no reason."""
        if self._consumer.blueprint.state == RUN and not self._is_shutting_down():
            return
        self._stop_all()

    def close(self) -> None:
        """End: give back what is left, and wait until Temporal knows of all that ended."""
        self.cancel()
        self._stop_all()
        for service in self._running_services:
            service.cancel()
        self._host.release_all()
        deadline = time.monotonic() + REPORT_TIMEOUT.total_seconds()
        for future in self._leaving:
            try:
                future.result(timeout=max(0.1, deadline - time.monotonic()))
            except TimeoutError:
                logger.warning("temporal.not_all_reported")
        if self._app.presence is not None:
            self._app.presence.watchdog.unwatch("temporal")
        self.executor.shutdown(wait=False, cancel_futures=True)
        self._client.close()

    # -- the pollers

    def _is_shutting_down(self) -> bool:
        flags: list[Any] = [worker_state.should_stop, worker_state.should_terminate]
        return any(flag is not None and flag is not False for flag in flags)

    def _start(self, queue: str, *, more: int = 0) -> tuple[Poller, Future[None]]:
        task_queue = task_queue_for(self._app, queue)
        poller = Poller(
            self._client,
            task_queue,
            lambda client: self._worker(client, queue, task_queue, more),
            has_own_client=bool(more),
        )
        logger.info("Polling Temporal's task queue %r for the queue %r.", task_queue, queue)
        return poller, self._client.submit(poller.run())

    def _worker(self, client: Client, queue: str, task_queue: str, more: int) -> Worker:
        activities = JobActivities(self._app, self._host, queue=queue, executor=self.executor)
        return Worker(
            client,
            task_queue=task_queue,
            workflows=[] if more else [GenericJobWorkflow],
            activities=activities.all,
            max_concurrent_activities=more or self._concurrency,
            max_heartbeat_throttle_interval=HEARTBEAT_THROTTLE,
            default_heartbeat_throttle_interval=HEARTBEAT_THROTTLE,
            graceful_shutdown_timeout=FOREVER,
            identity=self._consumer.hostname,
            build_id=f"jobbridge-{__version__}",  # else the SDK reads all loaded modules' code, for a second
            workflow_runner=OWN_RUNNER,
        )

    def _stop_all(self) -> None:
        for name in list(self._pollers):
            self._stop(*self._pollers.pop(name))
        for more in list(self._more):
            self._stop_more(more)

    def _stop_more(self, more: tuple[str, int, Poller, Future[None]]) -> None:
        self._more.remove(more)
        self._stop(*more[2:])

    def _stop(self, poller: Poller, running: Future[None]) -> None:
        self._leaving.append(running)
        self._client.submit(poller.stop())

    def _wait_for_temporal(self) -> None:
        """Block as Celery does while its broker is away, and let a signal end it."""
        while not all(poller.is_running.is_set() for poller, _ in self._pollers.values()):
            worker_state.maybe_shutdown()
            if self._app.presence is not None:
                self._app.presence.watchdog.tick()  # Temporal may be away for long, and the loop waits here
            time.sleep(0.05)
