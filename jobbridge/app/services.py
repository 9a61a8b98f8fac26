"""What an app has beside its tasks: each is made when it is asked for first."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, cast

from jobbridge.app.durable.durable import Durable
from jobbridge.app.execute.chords import Chords
from jobbridge.app.fanout.parent import FanOuts
from jobbridge.app.publish.consumers import Servers
from jobbridge.app.results.listener import ResultListener
from jobbridge.store.jobs.keys import KeyStore
from jobbridge.store.jobs.queries import JobStore
from jobbridge.store.jobs.steps import StepStore
from jobbridge.store.tenants.tenants import TenantStore
from jobbridge.store.workers.workers import WorkerStore

if TYPE_CHECKING:
    from jobbridge.app.application import Celery
    from jobbridge.app.schedules.commands import ScheduleService


class Services:
    """The part of the app that has them."""

    def _as_app(self) -> Celery:
        return cast("Celery", self)

    @cached_property
    def fan_outs(self) -> FanOuts:
        """Parents and their children."""
        return FanOuts(self._as_app())

    @cached_property
    def chords(self) -> Chords:
        """Chords and their parts."""
        return Chords(self._as_app())

    @cached_property
    def durable(self) -> Durable:
        """Jobs that sleep and wait."""
        return Durable(self._as_app())

    @cached_property
    def jobs(self) -> JobStore:
        """Questions about jobs."""
        return JobStore(self._as_app().database)

    @cached_property
    def job_steps(self) -> StepStore:
        return StepStore(self._as_app().database)

    @cached_property
    def keys(self) -> KeyStore:
        return KeyStore(self._as_app().database)

    @cached_property
    def result_listener(self) -> ResultListener:
        """Who hears of jobs' ends, for those who wait in this process."""
        return ResultListener(self._as_app().database.target)

    @cached_property
    def schedules(self) -> ScheduleService:
        """Recurring jobs: made, changed, paused, listed."""
        from jobbridge.app.schedules.commands import ScheduleService

        return ScheduleService(self._as_app())

    @cached_property
    def tenants(self) -> TenantStore:
        """Which tenants there are; suspend and resume them."""
        return TenantStore(self._as_app().database)

    @cached_property
    def workers(self) -> WorkerStore:
        """Questions about workers."""
        return WorkerStore(self._as_app().database)

    @cached_property
    def servers(self) -> Servers:
        """Who can run what, as of a moment ago."""
        return Servers(self.workers)
