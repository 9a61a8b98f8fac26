"""Schedules from one engine to the other.

The row says who fires; whoever else does is refused by it. So a schedule is moved by one statement, and Temporal is
told after that, here or by any worker's reconciler.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobbridge.core.keys import Engine
from jobbridge.errors import UnsupportedOption
from jobbridge.store.moves import schedules as moves

if TYPE_CHECKING:
    from jobbridge.app.application import Celery
    from jobbridge.cutover.report import Report, Scope
    from jobbridge.store.schedules.rows import ScheduleRow

_PAGE = 50


def move_schedules(app: Celery, scope: Scope, report: Report) -> None:
    """Move the schedules that are meant, a page in a transaction.

    Raises:
        DatabaseUnavailable, DatabaseError: What was committed is moved.
    """
    after: tuple[str, str] | None = None
    while True:
        moved = 0
        with app.database.transaction() as connection:
            rows = moves.take(
                connection,
                scope.origin,
                tenant=scope.tenant,
                pattern=scope.pattern,
                after=after,
                limit=_PAGE,
            )
            for row in rows:
                if reason := _why_not(row):
                    report.staying_schedules[_named(row)] = reason
                    continue
                try:
                    moves.move(connection, row, scope.to)
                except UnsupportedOption as error:
                    report.staying_schedules[_named(row)] = str(error)
                    continue
                moved += 1
        report.schedules += moved
        if len(rows) < _PAGE:
            return
        after = (rows[-1].tenant, rows[-1].name)


def tell_temporal(app: Celery, report: Report) -> None:
    """Have Temporal fire what it is to fire, and nothing else; then say where the two do not agree.

    Raises:
        EngineUnavailable: Temporal does not answer.
    """
    from temporalio.client import Client
    from temporalio.service import RPCError

    from jobbridge.errors import EngineUnavailable
    from jobbridge.temporal.schedules.reconciler import ScheduleReconciler

    client = app.delivery(Engine.TEMPORAL).client  # type: ignore[attr-defined]  # of Temporal's own delivery
    reconciler = ScheduleReconciler(app, client)

    async def converge(_: Client | None = None) -> int:
        return await reconciler.converge()

    try:
        while client.submit(converge()).result():
            pass
    except RPCError as error:
        raise EngineUnavailable(f"Temporal did not take the schedules: {error.message}") from error
    with app.database.connection() as connection:
        still, missing = moves.not_told(connection)
    if still:
        report.problems.append(f"Temporal still has {still} schedule(s) that it must not fire; run it again.")
    if missing:
        report.problems.append(f"Temporal did not take {missing} schedule(s): `jobbridge doctor` says why.")


def _why_not(row: ScheduleRow) -> str | None:
    if row.buffered_fire_at is not None:
        return "one of its fires waits for an earlier job to end; run it again after that"
    return None


def _named(row: ScheduleRow) -> str:
    return f"{row.name} ({row.tenant})"
