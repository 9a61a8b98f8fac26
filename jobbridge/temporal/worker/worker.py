"""`jobbridge temporal-worker`: Celery's worker, with Temporal as its source of messages.

Pool, requests, strategies, remote control, events, signals, time limits and the command line are Celery's own. Only
the consumer of task messages is another one; see docs/decisions/0001-host-celerys-worker-on-temporal.md.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click
from celery.app.utils import find_app
from celery.apps.worker import Worker as CeleryWorker
from celery.bin.base import CLIContext
from celery.bin.celery import consume_preload_options  # type: ignore[attr-defined]  # not in the stubs
from celery.bin.worker import worker as celery_worker_command
from celery.exceptions import CPendingDeprecationWarning
from celery.worker.consumer import Consumer

from jobbridge.core.keys import Engine
from jobbridge.errors import ConfigurationError, JobBridgeError, UnsupportedOption
from jobbridge.temporal.deliver.delivery import TemporalDelivery
from jobbridge.temporal.deliver.relay import Relay
from jobbridge.temporal.schedules.reconciler import ScheduleReconciler
from jobbridge.temporal.wire.client import TemporalClient
from jobbridge.temporal.worker.bridge import WorkerHost
from jobbridge.temporal.worker.pollers import TemporalTaskConsumer
from jobbridge.temporal.worker.progress import ProgressReporter, RowReader
from jobbridge.temporal.worker.request import adopt
from jobbridge.temporal.worker.user_workers import UserWorkersStep
from jobbridge.temporal.workflows import live

if TYPE_CHECKING:
    from jobbridge.app.application import Celery

_GREEN_POOLS = {"gevent", "eventlet"}


class TemporalConsumer(Consumer):
    """Celery's consumer, whose messages do not depend on the broker's connection.

    The broker (the control plane: inspect, control, events) may come and go: what this worker holds stays valid.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        app: Celery = self.app  # type: ignore[assignment]  # load_app made sure
        self._jobs_app = app
        self.host = WorkerHost(app, self)
        self._is_reconnecting = False
        self._temporal_tasks: TemporalTaskConsumer | None = None
        # Celery's bootstep `Tasks` makes its consumer by this.
        app.amqp.TaskConsumer = self._task_consumer

    def _task_consumer(self, connection: Any, **options: Any) -> TemporalTaskConsumer:
        if self._temporal_tasks is None:
            self._temporal_tasks = _make_task_consumer(self._jobs_app, self)
        return self._temporal_tasks

    def update_strategies(self) -> None:
        for task in self.app.tasks.values():
            adopt(task)
        super().update_strategies()

    def _update_prefetch_count(self, index: int = 0) -> None:
        """Celery calls this when the pool has grown or shrunk by that number of processes."""
        super()._update_prefetch_count(index)  # type: ignore[misc]  # not in the stubs
        controller: Any = vars(self)["controller"]
        if self._temporal_tasks is None or controller.autoscaler is not None:
            return  # with an autoscaler there is room for the largest pool from the start
        self._temporal_tasks.resize(index)

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        self._is_reconnecting = True
        with warnings.catch_warnings():
            # Celery advises to cancel tasks now, which it could not acknowledge any more. Here it can.
            warnings.simplefilter("ignore", CPendingDeprecationWarning)
            super().on_connection_error_after_connected(exc)

    def on_connection_error_before_connected(self, exc: Exception) -> None:
        self._is_reconnecting = True
        super().on_connection_error_before_connected(exc)

    def on_close(self) -> None:
        """Drop what has not begun; only when the worker stops, for a lost connection takes nothing away here."""
        if self._is_reconnecting:
            self._is_reconnecting = False
            return
        self.host.release_unstarted()
        super().on_close()


class TemporalWorker(CeleryWorker):
    """Celery's worker program over Temporal."""

    jobbridge_engine = Engine.TEMPORAL

    def on_before_init(self, quiet: bool = False, **options: Any) -> None:
        # Both are about what a lost connection takes away, which here is nothing.
        self.app.conf.update(
            worker_cancel_long_running_tasks_on_connection_loss=False,
            worker_enable_prefetch_count_reduction=False,
        )
        super().on_before_init(quiet=quiet, **options)

    def setup_defaults(self, **options: Any) -> Any:  # type: ignore[override]  # thirty of Celery's own
        super().setup_defaults(**options)
        chosen: Any = vars(self)["pool_cls"]
        pool = chosen if isinstance(chosen, str) else chosen.__module__.rpartition(".")[2]
        if pool in _GREEN_POOLS:
            raise UnsupportedOption(
                f"The pool {pool!r} cannot run beside Temporal's client.",
                hint="Use -P prefork, threads or solo.",
            )
        self.consumer_cls = TemporalConsumer

    def on_start(self) -> None:
        super().on_start()
        # Celery's tracer has logged each failure already, with its traceback.
        logging.getLogger("temporalio.activity").setLevel(logging.ERROR)


def _make_task_consumer(app: Celery, consumer: TemporalConsumer) -> TemporalTaskConsumer:
    host = consumer.host
    # One client per process: tasks of a threads pool publish through it, too.
    delivery = TemporalDelivery(
        app.settings, app, client=TemporalClient(app.settings, identity=consumer.hostname)
    )
    app._deliveries[Engine.TEMPORAL] = delivery
    controller: Any = vars(consumer)["controller"]
    tasks = TemporalTaskConsumer(
        app,
        consumer,
        host,
        delivery.client,
        concurrency=max(controller.max_concurrency or 0, controller.concurrency),
    )
    relay = Relay(app, delivery, is_held=host.holds, executor=tasks.executor)
    progress = ProgressReporter(app, host, executor=tasks.executor)
    live.read_by(RowReader(app, executor=tasks.executor))
    schedules = ScheduleReconciler(app, delivery.client)
    tasks.services = [relay.run, progress.run, schedules.run]
    return tasks


def main(argv: Sequence[str] | None = None, *, program: str = "jobbridge temporal-worker") -> int:
    """Run the worker; takes the options of `celery worker`, and `-A`.

    Returns:
        The exit code.
    """
    own, options = _parser(program).parse_known_args(sys.argv[1:] if argv is None else list(argv))
    if own.workdir:
        os.chdir(own.workdir)
    try:
        app = load_app(own.app)
        return run(app, options, program=program, is_quiet=own.quiet, has_color=not own.no_color)
    except JobBridgeError as error:
        click.echo(f"Error: {error}\nHint: {error.hint}", err=True)
        return 3


def run(
    app: Celery, options: Sequence[str], *, program: str, is_quiet: bool = False, has_color: bool = True
) -> int:
    """Run a worker of `app` in this process until it is stopped; gives the exit code."""
    app.Worker = app.subclass_with_self(TemporalWorker, name="Worker")
    app.steps["worker"].add(UserWorkersStep)
    _take_user_options(app)
    context = CLIContext(app=app, no_color=not has_color, workdir=None, quiet=is_quiet)
    try:
        celery_worker_command.main(args=list(options), prog_name=program, obj=context, standalone_mode=True)
    except SystemExit as error:  # click ends so, always
        code = error.code
        return code if isinstance(code, int) else int(code is not None)


def _take_user_options(app: Celery) -> None:
    """Know the options that the app's code has added for workers, as `celery worker` does."""
    preload = list(app.user_options.get("preload", ()))
    for option in (*app.user_options.get("worker", ()), *preload):
        if option not in celery_worker_command.params:
            celery_worker_command.params.append(option)
    if preload and celery_worker_command.callback is not None:
        celery_worker_command.callback = consume_preload_options(celery_worker_command.callback)


def load_app(name: str) -> Celery:
    """Find the app as `celery -A` does.

    Raises:
        ConfigurationError: It cannot be imported, or is a plain Celery app.
    """
    try:
        app = find_app(name)
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(
            f"The app {name!r} cannot be loaded: {error}.", hint="Pass -A package.module, as to `celery -A`."
        ) from error
    if not getattr(app, "is_jobbridge", False):
        raise ConfigurationError(
            f"The app {name!r} is a plain Celery app.",
            hint="Write `from jobbridge import Celery` instead of `from celery import Celery`.",
        )
    app.set_current()
    app.set_default()
    found: Celery = app  # type: ignore[assignment]  # as just checked
    return found


def _parser(program: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=program, add_help=False, allow_abbrev=False)
    parser.add_argument("-A", "--app", default=os.environ.get("CELERY_APP", "jobbridge"))
    parser.add_argument("--workdir")
    parser.add_argument("-q", "--quiet", action="store_true")
    parser.add_argument("--no-color", action="store_true")
    return parser
