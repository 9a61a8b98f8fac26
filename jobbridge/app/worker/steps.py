"""What every worker of an app does beside Celery's own steps."""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket
import threading
from typing import TYPE_CHECKING, Any, Protocol

import click
from celery import bootsteps, signals
from celery.concurrency.asynpool import AsynPool
from celery.concurrency.prefork import TaskPool
from celery.worker import state as worker_state

from jobbridge.app.execute import request
from jobbridge.app.execute.settlement import JobSettler
from jobbridge.app.execute.together import PATIENCE
from jobbridge.app.urls import BROKER_SCHEME
from jobbridge.app.worker import losses, pool
from jobbridge.app.worker.presence import Presence, die_with_parent
from jobbridge.core.keys import Engine
from jobbridge.errors import DatabaseRefused, DatabaseUnavailable, JobBridgeError
from jobbridge.postgres.names import identify

if TYPE_CHECKING:
    from jobbridge.settings import Settings

logger = logging.getLogger(__name__)

_Step: Any = bootsteps.Step  # untyped
_StartStopStep: Any = bootsteps.StartStopStep


#: Of the events by which Flower and `celery events` know that a worker is there, in seconds: a message each.
HEARTBEAT = 30.0


class Misconfigured(click.ClickException):
    """A setting, or the tables, have to be put right first; our commands' exit code for it."""

    exit_code = 3


class CheckTables(_Step):  # type: ignore[misc]  # untyped base
    """Refuse to start on tables that this release does not know.

    A Postgres that is away is another matter: Celery waits for its broker by itself.
    """

    def create(self, worker: Any) -> None:
        identify(f"worker {worker.hostname}")
        tell_engine(worker.app.settings)
        try:
            worker.app.database.make_room(worker.concurrency)
            worker.app.database.check_sessions()
            with worker.app.database.connection():
                pass
        except DatabaseRefused as error:
            raise Misconfigured(f"{error}\nHint: {error.hint}") from error
        except DatabaseUnavailable:
            return
        except JobBridgeError as error:
            # The worker's command line is click's, which prints this without a traceback.
            raise Misconfigured(f"{error}\nHint: {error.hint}") from error


def tell_engine(settings: Settings) -> None:
    """Say where jobs go, and who says so: a forgotten `.env` must not win silently (FEATURES, story 1)."""
    field = "edition" if settings.job_runner_type is None else "job_runner_type"
    source = settings.sources[field]
    level = logging.WARNING if source.startswith(".env") else logging.INFO
    logger.log(level, "Jobs that name no engine go to %s, says %s.", settings.engine.value, source)
    for overruled, others in settings.overruled.items():
        for other in others:
            logger.warning("%s says otherwise; %s wins.", other, settings.sources[overruled])


class Observe(_Step):  # type: ignore[misc]  # untyped base
    """Begin to observe, if that is switched on, before the pool forks."""

    def create(self, worker: Any) -> None:
        try:
            _ = worker.app.observer
        except JobBridgeError as error:
            raise Misconfigured(f"{error}\nHint: {error.hint}") from error


class BePresent(_Step):  # type: ignore[misc]  # untyped base
    """Register the worker before its pool forks, and take it off the list when all its jobs have ended.

    Celery starts its steps when all of them are made, so what is done on creation comes before the pool's processes.
    """

    requires = (CheckTables,)

    def create(self, worker: Any) -> None:
        if str(worker.app.conf.broker_url).startswith(BROKER_SCHEME) and not worker.options.get(
            "heartbeat_interval"
        ):
            # Else Celery writes one every two seconds. It says in each how often they come.
            worker.options["heartbeat_interval"] = HEARTBEAT
        engine = getattr(worker, "jobbridge_engine", Engine.CELERY)
        presence = worker.app.presence = Presence(worker.app, name=worker.hostname, engine=engine)
        presence.open()
        if worker.use_eventloop:
            # Without the loop, pool processes are children of a thread, whose end the kernel would take for their
            # parent's.
            signals.worker_process_init.connect(
                die_with_parent, weak=False, dispatch_uid="jobbridge.die_with_parent"
            )

        def leave(sender: Any = None, **_: Any) -> None:
            if sender is worker:
                presence.close()

        signals.worker_shutdown.connect(leave, weak=False)


class StayPresent(_StartStopStep):  # type: ignore[misc]  # untyped base
    """Keep the worker on the list; begins when the pool has forked, for it takes a thread."""

    requires = ("celery.worker.components:Pool", BePresent)

    def start(self, worker: Any) -> None:
        worker.app.presence.watch(worker)


class AcknowledgeFirst(_Step):  # type: ignore[misc]  # untyped base
    """In the solo pool, have the acknowledgement of a task that must not run twice written before the task runs.

    Celery acknowledges at the next turn of the event loop (celery 5.7, worker/consumer/consumer.py,
    `on_task_received`), and there the task is the turn.
    """

    requires = ("celery.worker.components:Pool",)

    def include_if(self, worker: Any) -> bool:
        return type(worker.pool).__module__ == "celery.concurrency.solo"

    def create(self, worker: Any) -> None:
        worker.app.acknowledge_now = _acknowledge_now


class KeepHanded(_Step):  # type: ignore[misc]  # untyped base
    """Have a pool of processes keep what was handed to them when Celery's consumer begins anew (`pool`)."""

    requires = ("celery.worker.components:Pool",)

    def include_if(self, worker: Any) -> bool:
        return worker.use_eventloop and isinstance(worker.pool, TaskPool) and worker.pool.Pool is AsynPool

    def create(self, worker: Any) -> None:
        worker.pool.Pool = pool.Pool  # before it starts


class ShareMemory(_Step):  # type: ignore[misc]  # untyped base
    """Leave what was made before the pool forks out of garbage collections, which write into each object.

    A process of the pool has its parent's memory until one of both writes there. The first collection would copy most
    of it: 30 MB for each process, a quarter of a worker of two.
    """

    requires = ("celery.worker.components:Pool",)

    def include_if(self, worker: Any) -> bool:
        # An embedded worker's process is its host's, who may want its garbage collected.
        is_own = threading.current_thread() is threading.main_thread()
        return is_own and isinstance(worker.pool, TaskPool)

    def create(self, worker: Any) -> None:
        signals.worker_before_create_process.connect(_freeze_once, dispatch_uid="jobbridge.freeze_once")


def _freeze_once(**_: Any) -> None:
    # Not when a process is replaced: the garbage of what runs then would stay for ever.
    signals.worker_before_create_process.disconnect(dispatch_uid="jobbridge.freeze_once")
    gc.collect()
    gc.freeze()


class NoteLosses(_Step):  # type: ignore[misc]  # untyped base
    """Remember what took the process of a CE job with it, to be told should that make a dead letter of its message."""

    requires = ("celery.worker.components:Pool",)

    def include_if(self, worker: Any) -> bool:
        return getattr(worker, "jobbridge_engine", Engine.CELERY) is Engine.CELERY

    def create(self, worker: Any) -> None:
        for task in worker.app.tasks.values():
            losses.adopt(task, worker.app.losses)


class SettleTogether(_Step):  # type: ignore[misc]  # untyped base
    """Where a pool of processes runs CE jobs, have their parent start and settle them, many at a time.

    It stands where Celery's semaphore does: what the pool has no room for waits here, and is not started.
    """

    requires = ("celery.worker.components:Pool", BePresent, NoteLosses)

    def include_if(self, worker: Any) -> bool:
        is_ours = getattr(worker, "jobbridge_engine", Engine.CELERY) is Engine.CELERY
        return is_ours and worker.use_eventloop and isinstance(worker.pool, TaskPool)

    def create(self, worker: Any) -> None:
        settler = worker.app.settler = JobSettler(worker.app, worker)
        for task in worker.app.tasks.values():
            request.adopt(task, settler)
        worker.process_task = settler.take  # before Celery's consumer is made, which hands messages to it

        def leave(sender: Any = None, **_: Any) -> None:
            if sender is worker:
                settler.close()

        signals.worker_shutdown.connect(leave, weak=False)


class TurnSettler(_StartStopStep):  # type: ignore[misc]  # untyped base
    """Tell the settler when the worker's loop turns, and when it has stopped: what it has taken goes back then."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def include_if(self, consumer: Any) -> bool:
        return consumer.app.settler is not None

    def start(self, consumer: Any) -> None:
        consumer.app.settler.begin()

    def stop(self, consumer: Any) -> None:
        consumer.app.settler.interrupt()

    def shutdown(self, consumer: Any) -> None:
        consumer.app.settler.interrupt()


def _acknowledge_now(task_id: str) -> None:
    for running in [each for each in worker_state.active_requests if each.id == task_id]:
        channel = running.message.channel
        settler = getattr(getattr(channel, "connection", None), "settler", None)
        if settler is not None:  # else it is another broker's, or Temporal's
            # Not by the message, which Celery will acknowledge all the same: the channel overlooks the second time.
            channel.basic_ack(running.message.delivery_tag)
            settler.flush_patiently(patience=PATIENCE)


class Maintenance(Protocol):
    """What looks after jobs, beside a worker; see `jobbridge.maintenance`."""

    def start(self) -> None: ...

    def stop(self, *, timeout: float = ...) -> None: ...


class Maintain(_StartStopStep):  # type: ignore[misc]  # untyped base
    """Run the services that look after jobs, on a thread of the worker's parent, from when the pool has forked."""

    requires = ("celery.worker.components:Pool", BePresent)

    def include_if(self, worker: Any) -> bool:
        return worker.app.settings.maintenance and worker.app.maintainer_factory is not None

    def create(self, worker: Any) -> Maintenance:
        engine = getattr(worker, "jobbridge_engine", Engine.CELERY)
        maintenance: Maintenance = worker.app.maintainer_factory(worker.app, engine, worker.hostname)
        return maintenance

    def stop(self, worker: Any) -> None:
        # Its thread may wait for an engine that does not answer. It is a daemon, and may be cut off anywhere.
        self.obj.stop(timeout=1.0)

    def terminate(self, worker: Any) -> None:
        self.stop(worker)


class WakeOnSignal(_StartStopStep):  # type: ignore[misc]  # untyped base
    """Have a signal end the event loop's wait, so that a worker that is told to stop does so at once.

    Python's handlers run between bytecodes, and a poll that was interrupted goes on waiting (PEP 475): an idle worker
    noticed SIGTERM only at its next timer, seconds later.
    """

    requires = ("celery.worker.components:Hub",)

    def __init__(self, worker: Any, **options: Any) -> None:
        super().__init__(worker, **options)
        self._sockets: tuple[socket.socket, socket.socket] | None = None

    def include_if(self, worker: Any) -> bool:
        return bool(worker.use_eventloop)

    def start(self, worker: Any) -> None:
        if threading.current_thread() is not threading.main_thread():
            return  # an embedded worker: signals are its host's business
        reader, writer = socket.socketpair()
        reader.setblocking(False)
        writer.setblocking(False)
        self._sockets = reader, writer
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        os.register_at_fork(after_in_child=_forget_wakeup)

    def register_with_event_loop(self, worker: Any, hub: Any) -> None:
        if self._sockets is not None:
            hub.add_reader(self._sockets[0].fileno(), self._drain)

    def stop(self, worker: Any) -> None:
        if self._sockets is not None:
            signal.set_wakeup_fd(-1)
            for each in self._sockets:
                each.close()
            self._sockets = None

    def _drain(self) -> None:
        if self._sockets is None:
            return
        try:
            while self._sockets[0].recv(1024):
                pass
        except BlockingIOError:
            return


def _forget_wakeup() -> None:
    if threading.current_thread() is threading.main_thread():
        signal.set_wakeup_fd(-1)
