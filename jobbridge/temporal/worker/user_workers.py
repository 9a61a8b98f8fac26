"""Serves what `UserQueue` declares: a worker of Temporal's SDK per task queue, beside the jobs.

They have a connection and a thread of their own. An application's `async` activity that blocks would otherwise
hold up the heartbeats of jobs, and Temporal would take those away from this worker.

One that fails is started again, with the reason in the log and in `celery inspect stats`; the others go on.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from importlib import import_module
from typing import TYPE_CHECKING, Any

from celery import bootsteps
from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.worker import Worker
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner

from jobbridge import __version__
from jobbridge.app.worker.steps import Misconfigured
from jobbridge.errors import ConfigurationError
from jobbridge.temporal.deliver.delivery import task_queue_for
from jobbridge.temporal.wire.client import TemporalClient
from jobbridge.temporal.worker.pollers import SANDBOX, Poller
from jobbridge.temporal.worker.user_queues import UserQueue, user_queues

if TYPE_CHECKING:
    from jobbridge.app.application import Celery

logger = logging.getLogger(__name__)

SETTING = "temporal_workers"
#: How long the last reports to Temporal may take once nothing runs any more.
REPORT_TIMEOUT = timedelta(seconds=10)

_StartStopStep: Any = bootsteps.StartStopStep  # untyped


@dataclass(frozen=True, kw_only=True)
class Served:
    """A user's queue with what its strings named."""

    queue: UserQueue
    workflows: Sequence[type[Any]]
    activities: Sequence[Callable[..., Any]]

    @property
    def names(self) -> list[str]:
        workflows = [_workflow_name(each) or "any" for each in self.workflows]
        return workflows + [_activity_name(each) or "any" for each in self.activities]

    @property
    def has_plain_activities(self) -> bool:
        return any(not _activity_definition(each).is_async for each in self.activities)


def resolve(queue: UserQueue) -> Served:
    """Import what the declaration names.

    Raises:
        ConfigurationError: Something cannot be imported, is not there, or is no workflow or activity.
    """
    workflows = [found for each in queue.workflows for found in _found(queue, each)]
    activities = [found for each in queue.activities for found in _found(queue, each)]
    for each in workflows:
        if not isinstance(each, type) or workflow._Definition.from_class(each) is None:
            raise _wrong(queue, f"{each!r} is no workflow", "Declare it with `@workflow.defn`.")
    for each in activities:
        if not callable(each) or activity._Definition.from_callable(each) is None:
            raise _wrong(queue, f"{each!r} is no activity", "Declare it with `@activity.defn`.")
    return Served(queue=queue, workflows=workflows, activities=activities)


def _found(queue: UserQueue, reference: object) -> list[Any]:
    if not isinstance(reference, str):
        return [reference]
    module, _, path = reference.partition(":")
    try:
        found: Any = import_module(module)
    except ImportError as error:
        hint = f"Correct the name, or install what {module!r} needs."
        raise _wrong(queue, f"{reference!r} cannot be imported: {error}", hint) from error
    for name in path.split("."):
        try:
            found = getattr(found, name)
        except AttributeError as error:
            raise _wrong(queue, f"{reference!r} is not there: {error}", "Correct the name.") from error
    return list(found) if isinstance(found, list | tuple) else [found]


def _wrong(queue: UserQueue, what: str, hint: str) -> ConfigurationError:
    return ConfigurationError(f"The task queue {queue.task_queue!r}: {what}.", hint=hint)


def _workflow_name(found: type[Any]) -> str | None:
    definition = workflow._Definition.from_class(found)
    return definition.name if definition else None


def _activity_definition(found: Callable[..., Any]) -> activity._Definition:
    return activity._Definition.must_from_callable(found)


def _activity_name(found: Callable[..., Any]) -> str | None:
    return _activity_definition(found).name


class UserWorkers:
    """The workers of all the user's queues.

    Args:
        client: Theirs alone.
        served: The queues.
        identity: How Temporal's UI names this process.
    """

    def __init__(self, client: TemporalClient, served: Sequence[Served], *, identity: str) -> None:
        self._client = client
        self._identity = identity
        self._served = served
        self._executors: list[ThreadPoolExecutor] = []
        self._pollers: dict[str, tuple[Poller, Future[None]]] = {}

    def start(self) -> None:
        """Begin to poll; does not wait for Temporal."""
        for served in self._served:
            name = served.queue.task_queue
            poller = Poller(self._client, name, self._maker(served))
            self._pollers[name] = poller, self._client.submit(poller.run())
            logger.info("Serving Temporal's task queue %r: %s.", name, ", ".join(served.names))

    def close(self) -> None:
        """Take nothing more; what runs goes on for its `shutdown_timeout`. Does not wait."""
        for poller, _ in self._pollers.values():
            self._client.submit(poller.stop())

    def join(self, *, is_hasty: bool = False) -> None:
        """Wait until all have ended, or their time is over, and let go of the connection."""
        longest = timedelta() if is_hasty else max(each.queue.shutdown_timeout for each in self._served)
        deadline = time.monotonic() + (longest + REPORT_TIMEOUT).total_seconds() * (not is_hasty)
        for name, (_, running) in self._pollers.items():
            try:
                running.result(timeout=max(0.1, deadline - time.monotonic()))
            except (TimeoutError, CancelledError):
                logger.warning("The task queue %r did not stop in time; its tasks run elsewhere.", name)
        for executor in self._executors:
            executor.shutdown(wait=False, cancel_futures=True)
        self._client.close()

    def states(self) -> dict[str, Any]:
        """Tell of each queue what is served there, and whether it is polled or why not."""
        return {
            served.queue.task_queue: {
                "serves": served.names,
                "state": self._pollers[served.queue.task_queue][0].state,
                "max_concurrent_activities": served.queue.max_concurrent_activities,
            }
            for served in self._served
            if served.queue.task_queue in self._pollers
        }

    def _maker(self, served: Served) -> Callable[[Client], Worker]:
        queue = served.queue
        executor = None
        if served.has_plain_activities:
            threads = queue.activity_threads or queue.max_concurrent_activities
            executor = ThreadPoolExecutor(threads, thread_name_prefix=f"user-{queue.task_queue}")
            self._executors.append(executor)
        sandbox = SANDBOX.with_passthrough_modules(*queue.passthrough_modules)

        def make(client: Client) -> Worker:
            return Worker(
                client,
                task_queue=queue.task_queue,
                workflows=served.workflows,
                activities=served.activities,
                activity_executor=executor,
                max_concurrent_activities=queue.max_concurrent_activities,
                max_concurrent_workflow_tasks=queue.max_concurrent_workflow_tasks,
                max_activities_per_second=queue.max_activities_per_second,
                max_task_queue_activities_per_second=queue.max_task_queue_activities_per_second,
                graceful_shutdown_timeout=queue.shutdown_timeout,
                identity=self._identity,
                build_id=f"jobbridge-{__version__}",
                workflow_runner=SandboxedWorkflowRunner(restrictions=sandbox),
            )

        return make


class UserWorkersStep(_StartStopStep):  # type: ignore[misc]  # untyped base
    """Starts and stops the user's queues with Celery's worker; after the pool has forked, and before the first job."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **options: Any) -> None:
        super().__init__(worker, **options)
        self._workers: UserWorkers | None = None

    def include_if(self, worker: Any) -> bool:
        return bool(worker.app.conf.get(SETTING))

    def create(self, worker: Any) -> None:
        """Import all of it while the worker can still refuse to start."""
        app: Celery = worker.app
        own = [task_queue_for(app, queue) for queue in app.amqp.queues.consume_from]
        try:
            served = [resolve(queue) for queue in user_queues(app.conf.get(SETTING), own=own)]
        except ConfigurationError as error:
            raise Misconfigured(f"{error}\nHint: {error.hint}") from error
        client = TemporalClient(app.settings, identity=worker.hostname)
        self._workers = UserWorkers(client, served, identity=worker.hostname)

    def start(self, worker: Any) -> None:
        if self._workers is not None:
            self._workers.start()

    def close(self, worker: Any) -> None:
        if self._workers is not None:
            self._workers.close()

    def stop(self, worker: Any) -> None:
        if self._workers is not None:
            self._workers.join()

    def terminate(self, worker: Any) -> None:
        if self._workers is not None:
            self._workers.join(is_hasty=True)

    def info(self, worker: Any) -> dict[str, Any]:
        return {"user_queues": {} if self._workers is None else self._workers.states()}
