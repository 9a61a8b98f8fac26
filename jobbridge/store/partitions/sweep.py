"""What is done to partitions every ten minutes: the next ones are made, those past their retention go."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import psycopg

from jobbridge.core.status import JobStatus
from jobbridge.postgres.caller_connection import DriverConnection
from jobbridge.store.partitions.ahead import make_ahead
from jobbridge.store.partitions.expire import drop, drop_detached
from jobbridge.store.partitions.layout import DEFAULT, Layout, Partition, detached, layout_of
from jobbridge.store.partitions.spans import end_of

_log = logging.getLogger(__name__)


@dataclass(kw_only=True, slots=True)
class Swept:
    """What was done.

    Attributes:
        made: Partitions that are new.
        dropped: Partitions that are gone.
        jobs: How many jobs were in them.
        by_row: Partitions in which jobs are deleted one by one.
    """

    made: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    jobs: int = 0
    by_row: list[str] = field(default_factory=list)


def sweep(
    connection: DriverConnection,
    retention: Mapping[JobStatus, timedelta],
    *,
    shortest: timedelta | None,
    now: datetime,
    stopped: Callable[[], bool] = lambda: False,
) -> Swept | None:
    """Look after the partitions; None: the tables have none.

    What cannot be had now, because somebody has the tables for long or the role does not own them, is left: the doctor
    tells of it.

    Args:
        connection: In autocommit mode.
        retention: For tenants that have no rule of their own; from a job's end.
        shortest: Of all that is said of retention; None: all is kept.
        now: An aware instant.
        stopped: Do not begin another one.
    """
    layout = layout_of(connection)
    if layout is None:
        return None
    swept = Swept()
    if layout.has_default:
        swept.by_row.append(DEFAULT)
    try:
        swept.made += make_ahead(connection, layout, now)
        if layout.has_default:
            _finish(connection, retention, swept, stopped)
            _drop_old(connection, layout, retention, shortest, now, swept, stopped)
    except (psycopg.errors.LockNotAvailable, psycopg.errors.InsufficientPrivilege) as error:
        _log.warning("partitions_not_swept", extra={"error": str(error)})
    return swept


def _finish(
    connection: DriverConnection,
    retention: Mapping[JobStatus, timedelta],
    swept: Swept,
    stopped: Callable[[], bool],
) -> None:
    """Drop what somebody detached who then came to an end."""
    for partition in detached(connection):
        if not stopped():
            swept.jobs += drop_detached(connection, partition, retention)
            swept.dropped.append(partition.name)


def _drop_old(
    connection: DriverConnection,
    layout: Layout,
    retention: Mapping[JobStatus, timedelta],
    shortest: timedelta | None,
    now: datetime,
    swept: Swept,
    stopped: Callable[[], bool],
) -> None:
    for partition in layout.partitions:
        if shortest is None or partition.ends_at + shortest > now or stopped():
            return
        try:
            gone = drop(connection, partition, retention)
        except psycopg.errors.LockNotAvailable:
            continue  # the next pass tries again
        if gone is not None:
            swept.jobs += gone.jobs
            swept.dropped.append(partition.name)
            _log.info(
                "partition_dropped", extra={"partition": partition.name, "jobs": gone.jobs, "kept": gone.kept}
            )
        elif _is_long_past(layout, partition, shortest, now):
            swept.by_row.append(partition.name)


def _is_long_past(layout: Layout, partition: Partition, shortest: timedelta, now: datetime) -> bool:
    """Whether what is still kept of it is kept by another rule than the shortest, and not because it ended late."""
    return end_of(layout.width, partition.ends_at) + shortest <= now
