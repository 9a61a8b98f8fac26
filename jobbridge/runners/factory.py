"""One runner per process."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from jobbridge.app.options import engine_named
from jobbridge.core.keys import Engine
from jobbridge.errors import ConfigurationError
from jobbridge.runners.apps import current_app
from jobbridge.runners.runner import CeleryJobRunner, JobRunner, TemporalJobRunner

if TYPE_CHECKING:
    from jobbridge.app.application import Celery


@dataclass(slots=True)
class _Slot:
    lock: threading.Lock = field(default_factory=threading.Lock)
    runner: CeleryJobRunner | TemporalJobRunner | None = None
    #: Its app is the shipped one, for want of the application's own.
    is_stopgap: bool = False


class JobRunnerFactory:
    """Makes a process's runner when it is first asked for, and gives the same one from then on.

    Which one: the explicit argument, else JOB_RUNNER_TYPE, else what the edition says. Threads that ask at the same
    time get the same; a forked child gets its own.

    Args:
        app: By default the current Celery app if it is JobBridge's, else the one that `jobbridge` ships.
    """

    def __init__(self, app: Celery | None = None) -> None:
        self._app = app
        # By process id, and each with its own lock: a fork could copy a lock while a thread holds it.
        self._slots: dict[int, _Slot] = {}

    def get_runner(self, runner_type: Engine | str | None = None) -> JobRunner:
        """Give this process's runner.

        Args:
            runner_type: `celery` or `temporal` (`pgboss` is read as `celery`).

        Raises:
            UnsupportedOption: There is no runner of that name.
            ConfigurationError: This process has a runner of the other type.
            EngineUnavailable: The extra of Temporal is not installed.
        """
        wanted = None if runner_type is None else engine_named(runner_type)
        slot = self._slots.setdefault(os.getpid(), _Slot())
        with slot.lock:
            if slot.is_stopgap and slot.runner is not None and current_app() is not slot.runner.app:
                slot.runner.stop()
                slot.runner = None
            if slot.runner is None:
                slot.runner = self._make(wanted)
                slot.is_stopgap = self._app is None and slot.runner.app.is_shipped
            elif wanted is not None and slot.runner.engine is not wanted:
                raise ConfigurationError(
                    f"This process has a runner of the type {slot.runner.engine.value!r} already, "
                    f"and {wanted.value!r} is asked for.",
                    hint="Choose an engine for single jobs by the option engine=..., or call reset() first.",
                )
            return slot.runner

    def reset(self) -> None:
        """Stop this process's runner and forget it."""
        slot = self._slots.pop(os.getpid(), None)
        if slot is not None and slot.runner is not None:
            slot.runner.stop()

    def _make(self, wanted: Engine | None) -> CeleryJobRunner | TemporalJobRunner:
        app = self._app or current_app()
        engine = wanted or app.default_engine
        if engine is Engine.CELERY:
            return CeleryJobRunner(app)
        app.delivery(engine)  # says at once when its extra is missing
        return TemporalJobRunner(app)


_factory = JobRunnerFactory()


def get_job_runner(runner_type: Engine | str | None = None) -> JobRunner:
    """Give the process's runner over the current app; see `JobRunnerFactory.get_runner`."""
    return _factory.get_runner(runner_type)
