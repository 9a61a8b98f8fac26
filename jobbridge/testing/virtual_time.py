"""Virtual time: what is planned for later comes nearer, and the clocks of Python and Postgres stay as they are.

So nothing has to be patched, in no process: a worker, Postgres and the test see one time. What was due in two days is
due now; what a job plans from here on is counted from now again. Schedules are the exception: their fires are counted
in virtual time, so that "each day at six" is at six, once for each day that was travelled.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, LiteralString

from jobbridge.app.schedules.firing import BATCH, ScheduleFirer
from jobbridge.broker.admin import rehearsal
from jobbridge.core.schedules.intervals import duration_of
from jobbridge.store.schedules.fires import next_due
from jobbridge.store.schedules.repository import database_clock

if TYPE_CHECKING:
    from jobbridge.app.application import Celery
    from jobbridge.postgres.caller_connection import DriverConnection
    from jobbridge.testing.kit import Jobs

_JOBS_NEARER: LiteralString = """
UPDATE public.jobs
SET run_at = run_at - %(by)s, expires_at = expires_at - %(by)s
WHERE completed_at IS NULL AND (run_at > clock_timestamp() OR expires_at > clock_timestamp())
"""
#: When a sleep or a time-out is over is also where the job waits, and in the step that it has recorded.
_WAITS_NEARER: LiteralString = "UPDATE public.job_waits SET until = until - %(by)s WHERE until IS NOT NULL"
_STEPS_NEARER: LiteralString = """
UPDATE public.job_details
SET metadata = metadata || jsonb_build_object('until', (metadata ->> 'until')::timestamptz - %(by)s)
WHERE status IN ('scheduled', 'waiting') AND metadata ? 'durable' AND metadata ? 'until'
"""
#: A travel of years with a schedule of seconds would not end.
_MOST_STOPS = 100_000


class VirtualClock:
    """The time of one test."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs
        self._ahead = timedelta()

    @property
    def ahead(self) -> timedelta:
        """By how much it has travelled."""
        return self._ahead

    def now(self) -> datetime:
        """Give the virtual time: aware, in UTC."""
        now: datetime = self._jobs.app.database.run(self._now)
        return now

    def travel(self, to: str | timedelta | datetime, *, timeout: float = 60.0) -> None:
        """Go on in time, and have run what becomes due on the way, at its turn: schedules, ETAs, retries, expiries.

        Args:
            to: "2 days", "1 hour 30 minutes", a timedelta, or an instant of virtual time.
            timeout: Seconds that all of it may take.

        Raises:
            ValueError: It is in the past.
            AssertionError: Time was up before all had run.
        """
        deadline = time.monotonic() + timeout
        self._declare()
        start = self.now()
        target = _target(to, start)
        if target < start:
            raise ValueError(f"The clock only goes on: {target.isoformat()} is before {start.isoformat()}.")
        for _ in range(_MOST_STOPS):
            self._stop(deadline)
            following = self._next()
            if following is None or following > target:
                break
            self._advance(following - self.now())
        self._advance(target - self.now())
        self._stop(deadline)

    def travel_to_next(self) -> bool:
        """Go to when the next message is due, and run nothing; False: there is none. Schedules are left alone."""
        due = self._jobs.next_due()
        if due is None:
            return False
        self._advance(due - self._jobs.app.database.run(database_clock))
        return True

    def reset_schedules(self) -> None:
        """Have the app's schedules be counted in virtual time; the kit does it at its start."""
        self._jobs.app.schedules.store._clock = self._now

    def _declare(self) -> None:
        self.reset_schedules()
        self._jobs.app.schedules.sync()

    def _now(self, connection: Any) -> datetime:
        return database_clock(connection).astimezone(UTC) + self._ahead

    def _next(self) -> datetime | None:
        due = self._jobs.next_due()
        fire = self._jobs.next_fire()
        found = [each for each in (due + self._ahead if due else None, fire) if each is not None]
        return min(found, default=None)

    def _stop(self, deadline: float) -> None:
        self._jobs.fire_schedules(self._now)
        self._jobs._drain(deadline)

    def _advance(self, by: timedelta) -> None:
        if by <= timedelta():
            return
        self._ahead += by
        self._jobs.bring_nearer(by)


class Timed:
    """The part of the kit that the clock moves; engines have their own of it."""

    app: Celery

    def next_due(self) -> datetime | None:
        """Give when the next job is due that is not yet, on the real clock."""
        found: datetime | None = self.app.database.run(rehearsal.next_due)
        return found

    def next_fire(self) -> datetime | None:
        """Give when the next schedule fires, in virtual time."""
        found: datetime | None = self.app.database.run(next_due)
        return found

    def fire_schedules(self, clock: Any) -> None:
        """Do what beat does, at that time."""
        firer = ScheduleFirer(self.app, clock=clock)
        while firer.fire_due() == BATCH:
            pass

    def bring_nearer(self, by: timedelta) -> None:
        """Have all that waits be due so much earlier."""
        with self.app.database.transaction() as connection:
            rehearsal.bring_nearer(connection, by)
            connection.execute(_JOBS_NEARER, {"by": by})
            bring_waits_nearer(connection, by)


def bring_waits_nearer(connection: DriverConnection, by: timedelta) -> None:
    """Have the sleeps and time-outs of suspended jobs be over so much earlier."""
    for statement in (_WAITS_NEARER, _STEPS_NEARER):
        connection.execute(statement, {"by": by})


def _target(to: str | timedelta | datetime, start: datetime) -> datetime:
    if isinstance(to, datetime):
        return to if to.tzinfo is not None else to.replace(tzinfo=UTC)
    return start + (duration_of(to) if isinstance(to, str) else to)
