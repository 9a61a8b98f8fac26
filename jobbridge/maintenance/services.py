"""Which services a process can run."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from jobbridge.core.keys import Engine
from jobbridge.maintenance.batches import BatchService
from jobbridge.maintenance.chords import ChordService
from jobbridge.maintenance.counts import Counter
from jobbridge.maintenance.fanout import FanOutService
from jobbridge.maintenance.maintainer import Maintainer, Service
from jobbridge.maintenance.pruner import Pruner
from jobbridge.maintenance.reaper import Reaper
from jobbridge.maintenance.reconciler import BrokerReconciler
from jobbridge.maintenance.relay import RelayService, Sweeper
from jobbridge.maintenance.rules import RuleService
from jobbridge.maintenance.workflows import Settler, WorkflowService

if TYPE_CHECKING:
    from jobbridge.app.application import Celery


def make_maintainer(
    app: Celery,
    engine: Engine | None,
    holder: str | None,
    *,
    make_sweeper: Callable[[Celery], Sweeper],
    make_settler: Callable[[Celery], Settler],
) -> Maintainer:
    """Give the maintainer of a worker, or of a process of its own.

    Args:
        app: Whose jobs.
        engine: Of the worker; None: no worker, and every service.
        holder: The worker's name.
        make_sweeper: The way to Temporal, for jobs that wait to be delivered.
        make_settler: The way to Temporal, for jobs that it should have.
    """
    offered: list[Service] = [Reaper(app), FanOutService(app), ChordService(app), Pruner(app), Counter(app)]
    offered += [BatchService(app), RuleService(app)]
    if app.shares_database_with_broker:
        offered.append(BrokerReconciler(app))
    if engine is not Engine.TEMPORAL:
        offered.append(RelayService(app, make_sweeper))  # a Temporal worker has one that is quicker
    if engine is Engine.TEMPORAL or (engine is None and app.default_engine is Engine.TEMPORAL):
        offered.append(WorkflowService(app, make_settler))
    name = holder or f"maintain@{socket.gethostname()} ({os.getpid()})"
    return Maintainer(app.database, offered, holder=name)
