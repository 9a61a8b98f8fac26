"""The app class: a drop-in for `celery.Celery`."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Concatenate, Literal, cast, overload

import celery
from celery import signals as celery_signals
from celery.utils.objects import mro_lookup

from jobbridge.app import signals
from jobbridge.app.batches.membership import with_batch
from jobbridge.app.current import make_current
from jobbridge.app.durable import events, links, waking
from jobbridge.app.errors import sending
from jobbridge.app.execute import handlers, tenancy
from jobbridge.app.execute.claim import tracked
from jobbridge.app.fanout import parent_task
from jobbridge.app.loops.coroutines import synchronous
from jobbridge.app.loops.submission import send_signatures_from_loops
from jobbridge.app.publish import canvas, commands, retry
from jobbridge.app.publish.blocks import Blocks
from jobbridge.app.publish.message.checks import readable_ids
from jobbridge.app.publish.rules import declared
from jobbridge.app.results.async_results import AsyncApp
from jobbridge.app.results.listener import noting
from jobbridge.app.services import Services
from jobbridge.app.urls import BROKER_SCHEME, database_url_of, default_broker_url, same_database
from jobbridge.app.worker.broker_hooks import hooks_of
from jobbridge.app.worker.losses import Losses
from jobbridge.codec.sealing import Codec
from jobbridge.core.keys import Engine
from jobbridge.errors import ConfigurationError, EngineUnavailable
from jobbridge.recording import JobRecorder
from jobbridge.settings import in_schema
from jobbridge.store.database import Database

if TYPE_CHECKING:
    import logging

    from jobbridge.app.execute.settlement import JobSettler
    from jobbridge.app.execute.time_limits import TimeLimits
    from jobbridge.app.observer import Observer
    from jobbridge.app.options import Sent
    from jobbridge.app.publish.delivery import Delivery
    from jobbridge.app.types import P, Result, Task, Value
    from jobbridge.app.worker.presence import Presence
    from jobbridge.app.worker.steps import Maintenance
    from jobbridge.settings import Settings

#: What JobBridge sets where the user set nothing. A job must survive its worker, so it is acknowledged
#: when it ended, and one whose process was lost goes back to the queue.
DEFAULTS: dict[str, Any] = {
    "task_acks_late": True,
    "task_reject_on_worker_lost": True,
    # The broker keeps the leases of what runs while Postgres is away. Celery would end these tasks, and their jobs
    # would be cancelled.
    "worker_cancel_long_running_tasks_on_connection_loss": False,
    "broker_connection_retry_on_startup": True,
    "worker_prefetch_multiplier": 4,
    # Seconds: a worker whose loop does not turn for so long ends itself.
    "jobbridge_worker_stuck_after": 60.0,
    # Seconds: a worker that was told to stop, and runs nothing any more, ends within them, whatever a socket does.
    "jobbridge_worker_stop_within": 25.0,
    # Seconds: so long a message whose task this worker does not know goes back, while another worker knows it.
    "jobbridge_unknown_task_patience": 300.0,
    # Schedules are rows, and any number of beats may run.
    "beat_scheduler": "jobbridge.app.schedules.beat:TableScheduler",
}

_Base: Any = celery.Celery  # the stubs leave out what is overridden here


class Celery(Blocks, Services, AsyncApp, _Base):  # type: ignore[misc]  # see _Base
    """A Celery application whose messages run on Postgres or on Temporal, and whose jobs have rows.

    Takes what `celery.Celery` takes. `DATABASE_URL` (or a `jobbridge+postgresql://` broker URL) says where the tables
    are; `JOB_RUNNER_TYPE`, a task's `engine`, a route's `engine` or `apply_async(engine=…)` choose the engine.

    Keyword Args:
        settings: Instead of what the environment says.
    """

    #: Celery's signals go to all apps; receivers tell by this which are ours.
    is_jobbridge = True

    #: It is the one that `jobbridge` ships, which gives way to the application's own.
    is_shipped = False

    amqp_cls = "jobbridge.app.publish.amqp:AMQP"
    control_cls = "jobbridge.app.control:JobControl"

    #: Wired by jobbridge.bootstrap: the shipped app, how settings are read, and how each foreign engine is reached.
    default_app_loader: ClassVar[Callable[[], Celery] | None] = None
    settings_loader: ClassVar[Callable[[], Settings] | None] = None
    delivery_factories: ClassVar[dict[Engine, Callable[[Celery], Delivery]]] = {}
    maintainer_factory: ClassVar[Callable[[Celery, Engine, str], Maintenance] | None] = None
    observer_factory: ClassVar[Callable[[Celery], Observer | None] | None] = None
    log_dresser: ClassVar[Callable[[logging.Logger, str], None] | None] = None

    def __init__(self, *args: Any, settings: Settings | None = None, **kwargs: Any) -> None:
        self._settings = settings
        self._sent: ContextVar[Sent | None] = ContextVar("jobbridge_sent", default=None)
        self._make_blocks()
        self._deliveries: dict[Engine, Delivery] = {}
        #: Where a worker of this app runs: that it does.
        self.presence: Presence | None = None
        self._observer: Observer | None = None
        self._is_observer_chosen = False
        #: Where tasks run on the thread that acknowledges: how to do that at once.
        self.acknowledge_now: Callable[[str], None] | None = None
        #: Where a worker of this app runs tasks in its own process: who raises their time limits.
        self.time_limits: TimeLimits | None = None
        #: Where a worker of this app runs: what took the processes of its jobs with it.
        self.losses = Losses()
        #: Where a worker of this app has a pool of processes: who starts and settles its jobs.
        self.settler: JobSettler | None = None
        super().__init__(*args, **kwargs)
        if self.set_as_current:
            make_current(self)

    def on_init(self) -> None:
        for prepare in (
            signals.connect,
            canvas.send_groups_in_bulk,
            canvas.order_ids_by_time,
            send_signatures_from_loops,
        ):
            prepare()
        for signal in (celery_signals.after_setup_logger, celery_signals.after_setup_task_logger):
            signal.connect(self._dress_logs)
        names = (
            "CheckTables",
            "Observe",
            "BePresent",
            "StayPresent",
            "AcknowledgeFirst",
            "KeepHanded",
            "ShareMemory",
            "NoteLosses",
            "SettleTogether",
            "Maintain",
            "WakeOnSignal",
        )
        self.steps["worker"].update(f"jobbridge.app.worker.steps:{name}" for name in names)
        own = "jobbridge.app.worker.own_process"
        self.steps["worker"].update((f"{own}:TellFailures", f"{own}:EnforceTimeLimits"))
        self.steps["worker"].add("jobbridge.app.worker.strategies:OwnStrategies")
        self.steps["consumer"].add("jobbridge.app.worker.paused_queues:RespectPauses")
        self.steps["consumer"].add("jobbridge.app.worker.steps:TurnSettler")
        self.steps["consumer"].add("jobbridge.app.worker.unknown_tasks:GiveUnknownBack")
        self.steps["consumer"].add("jobbridge.app.worker.unreadable:BuryUnreadable")

    def _dress_logs(self, logger: logging.Logger | None = None, **_: Any) -> None:
        dresser = type(self).log_dresser
        if dresser is not None and logger is not None:
            dresser(logger, self.settings.log_format)

    # -- settings and what they lead to

    @property
    def settings(self) -> Settings:
        """The settings, read on first use."""
        if self._settings is None:
            loader = type(self).settings_loader
            if loader is None:
                raise ConfigurationError(
                    "This app has no settings.",
                    hint="Import Celery from jobbridge, or pass settings=... to it.",
                )
            self._settings = loader()
        return self._settings

    @property
    def observer(self) -> Observer | None:
        """Who is told of what is sent and run, if the settings or the application's code say that somebody is."""
        if not self._is_observer_chosen:
            self._is_observer_chosen = True
            factory = type(self).observer_factory
            if factory is not None:
                self._observer = factory(self) or self._observer
        return self._observer

    @observer.setter
    def observer(self, observer: Observer | None) -> None:
        self._observer, self._is_observer_chosen = observer, True

    @property
    def default_engine(self) -> Engine:
        return self.settings.engine

    @cached_property
    def database(self) -> Database:
        """Where the job tables are.

        Raises:
            ConfigurationError: Neither the broker URL nor DATABASE_URL names a database.
        """
        url = self._broker_database_url() or self.settings.database_url
        if not url:
            raise ConfigurationError(
                "No database is configured.",
                hint="Set DATABASE_URL=postgresql://user:password@host/name, or start one with `jobbridge dev`.",
            )
        url = in_schema(url, self.settings.database_schema)
        return Database(url, codec=Codec.of(self.settings.encryption_text()))

    @cached_property
    def recorder(self) -> JobRecorder:
        return JobRecorder(
            self.database, on_child_ended=self.fan_outs.attend, on_chord_due=self.chords.attend
        )

    @property
    def worker_number(self) -> int | None:
        """What the jobs that start here carry: the number of the worker that this process, or its parent, is."""
        return self.presence.number if self.presence is not None else None

    @cached_property
    def shares_database_with_broker(self) -> bool:
        """Whether job row and message can be written in one transaction."""
        url = database_url_of(self.conf.broker_write_url)
        # Others have their own sessions: also the stock SQL transport.
        return url is not None and same_database(url, self.database.target)

    @property
    def broker_scheme(self) -> str:
        """What the broker's URL begins with: in a job's row it says where its message is, if not beside the row."""
        return str(self.conf.broker_write_url).partition(":")[0]

    def delivery(self, engine: Engine) -> Delivery:
        """Give the way to a foreign engine.

        Raises:
            EngineUnavailable: Its extra is not installed.
        """
        if engine not in self._deliveries:
            factory = type(self).delivery_factories.get(engine)
            if factory is None:
                raise EngineUnavailable(
                    f"The engine {engine.value!r} is not available here.",
                    hint="Install it with `pip install 'jobbridge[temporal]'` and import Celery from jobbridge.",
                )
            self._deliveries[engine] = factory(self)
        return self._deliveries[engine]

    def _load_config(self) -> Any:
        # Behind everything the user configured and before Celery's own defaults. Celery's add_defaults() would put
        # them in front of what config_from_object() read (celery 5.7, utils/collections.py).
        conf = super()._load_config()
        ours = {
            **DEFAULTS,
            "result_backend": f"{BROKER_SCHEME}://",
            "broker_url": default_broker_url(self.settings.database_url),
        }
        conf.maps.insert(len(conf.maps) - 1, ours)
        conf.defaults.insert(len(conf.defaults) - 1, ours)
        return conf

    def _broker_database_url(self) -> str | None:
        return database_url_of(self.conf.broker_url)

    def _connection(
        self, url: Any, *args: Any, transport_options: dict[str, Any] | None = None, **options: Any
    ) -> Any:
        """Make a broker connection; ours tells what becomes of messages that no worker will see."""
        if isinstance(url, str) and url.startswith(BROKER_SCHEME):
            own = self.conf.broker_transport_options or {}  # what that says goes before the settings
            transport_options = {**hooks_of(self), **own, **(transport_options or {})}
        return super()._connection(url, *args, transport_options=transport_options, **options)

    # -- tasks

    if TYPE_CHECKING:  # Celery's own, which has no types

        @overload
        def task(self, function: Callable[P, Value], /) -> Task[P, Value]: ...
        @overload
        def task(
            self, *, bind: Literal[True], **options: Any
        ) -> Callable[[Callable[Concatenate[Any, P], Value]], Task[P, Value]]: ...
        @overload
        def task(
            self, *, bind: Literal[False] = False, **options: Any
        ) -> Callable[[Callable[P, Value]], Task[P, Value]]: ...
        def task(self, *args: Any, **options: Any) -> Any: ...

    def _task_from_fun(self, fun: Any, name: str | None = None, base: Any = None, **options: Any) -> Any:
        """Make the task with the claim in front of its own `before_start`."""
        own: dict[str, Any] = {key: options.pop(key) for key in ("before_start", "replace") if key in options}
        base, options = base or self.Task, declared.with_fleet_rate(options)
        if own:
            base = type(base.__name__, (base,), {**own, "abstract": True})
        return super()._task_from_fun(synchronous(fun), name=name, base=tracked(base), **options)

    def register_task(self, task: Any, **options: Any) -> Any:
        instance = task() if isinstance(task, type) else task
        if not mro_lookup(type(instance), "_jobbridge_tracked"):
            instance.__class__ = tracked(type(instance))
        instance.run = synchronous(instance.run)
        return super().register_task(instance, **options)

    def finalize(self, auto: bool = False) -> None:
        if not self.finalized:
            handlers.add_declared_handlers(self)
            parent_task.add_fan_out_task(self)
        super().finalize(auto=auto)

    def close(self) -> None:
        """Let go of connections, clients and their threads; the next use opens new ones."""
        while self._deliveries:
            self._deliveries.popitem()[1].close()
        if "result_listener" in self.__dict__:
            self.result_listener.close()
        if "database" in self.__dict__:
            self.database.close()
        super().close()

    # -- what callers use

    def send_task(self, *args: Any, **kwargs: Any) -> Result[Any]:
        """Send a task by name; the result is that of the job which there is now, with what came of it (`job`)."""
        token = self._sent.set(None)
        try:
            with sending():
                options = with_batch(readable_ids(kwargs), self.current_worker_task)
                told = noting(self.__dict__.get("result_listener"), options, self._sent)
                with self._apart_if_it_goes_on(options), told:
                    result: Result[Any] | None = self.amqp.send_shortly(args, options)
                    if result is None:
                        result = cast("Result[Any]", super().send_task(*args, **options))
            sent = self._sent.get()
        finally:
            self._sent.reset(token)
        if sent is not None:
            result.job, result.id = sent, sent.task_id  # another job may have the singleton key
        return result

    def note_sent(self, sent: Sent | None) -> None:
        """Tell the `send_task` that is going on what came of its message."""
        self._sent.set(sent)

    enqueue = commands.enqueue
    cancel_job = commands.cancel_job
    purge_tenant = tenancy.purge_tenant
    retry_job = retry.retry_job
    fan_out = parent_task.fan_out
    retry_failed = parent_task.retry_failed
    send_event = events.send_event
    event_link = links.event_link
    wake_job = waking.wake_job
