"""Real workers for a test: Celery's, in threads of this process, over the broker or over Temporal."""

from __future__ import annotations

import json
import os
import threading
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, LiteralString

from celery._state import _set_task_join_will_block  # type: ignore[attr-defined]  # missing in the stubs
from celery.app import trace
from celery.contrib.testing.worker import TestWorkController
from celery.worker import state

from jobbridge.broker.admin import rehearsal
from jobbridge.core.envelope import Envelope
from jobbridge.core.keys import Engine, JobKey
from jobbridge.errors import UnsupportedOption
from jobbridge.testing.kit import Jobs
from jobbridge.testing.virtual_time import bring_waits_nearer

if TYPE_CHECKING:
    from jobbridge.app.application import Celery
    from jobbridge.store.jobs.rows import StoredDelivery
    from jobbridge.testing.servers import Servers

_NEXT: LiteralString = """
SELECT min(run_at) FROM public.jobs WHERE completed_at IS NULL AND run_at > clock_timestamp()
"""
_WAITING: LiteralString = """
SELECT tenant, job_id
FROM public.jobs
WHERE completed_at IS NULL AND run_at > clock_timestamp() AND runner_type = 'temporal'
ORDER BY run_at
"""
_NEARER: LiteralString = """
UPDATE public.jobs
SET run_at = run_at - %(by)s, expires_at = expires_at - %(by)s, message = %(message)s
WHERE tenant = %(tenant)s AND job_id = %(job_id)s
"""
_STARTS_WITHIN, _STOPS_WITHIN = 60.0, 30.0  # seconds


class CeleryJobs(Jobs):
    """Jobs that a Celery worker of the app runs: in threads, so that what the test has replaced is replaced there, too.

    Args:
        app: Bound to the test's database.
        pool: `threads` or `solo`.
        concurrency: Threads.
        stops_within: Seconds that its worker has to end when the test is over.
    """

    engine: ClassVar[str] = "ce"

    def __init__(
        self, app: Celery, *, pool: str = "threads", concurrency: int = 2, stops_within: float = _STOPS_WITHIN
    ) -> None:
        super().__init__(app)
        self._options = {"pool": pool, "concurrency": concurrency}
        self._stops_within = stops_within
        self._stack = ExitStack()

    def start(self) -> None:
        super().start()
        self._stack.enter_context(self._working())

    def close(self) -> None:
        try:
            self._stack.close()
        finally:
            super().close()

    def _controller(self) -> type[Any]:
        return _Controller

    @contextmanager
    def _working(self) -> Iterator[Any]:
        app: Any = self.app
        worker = self._controller()(
            app=app,
            hostname=f"test-{uuid.uuid4().hex[:8]}@localhost",
            without_heartbeat=True,
            without_mingle=True,
            without_gossip=True,
            ready_callback=None,
            loglevel="WARNING",
            **self._options,
        )
        failures: list[BaseException] = []

        def run() -> None:
            app.set_current()
            try:
                worker.start()
            except BaseException as error:  # told in the test's own thread
                failures.append(error)

        thread = threading.Thread(target=run, name=f"jobbridge-testing-{self.engine}", daemon=True)
        thread.start()
        try:
            if not worker._on_started.wait(_STARTS_WITHIN):
                cause = failures[0] if failures else None
                raise RuntimeError(f"The worker was not ready within {_STARTS_WITHIN:g} s.") from cause
            _set_task_join_will_block(
                False
            )  # a worker says so for its whole process, and the test waits for results
            yield worker
        finally:
            celerys: Any = state
            celerys.should_stop = 0
            thread.join(self._stops_within)
            celerys.should_stop = None
            # One that hangs, or failed as it stopped, says no good-bye: its proof must not go on meanwhile.
            if app.presence is not None:
                app.presence.close()
            trace.reset_worker_optimizations(app)
            if thread.is_alive():
                raise RuntimeError(
                    f"The worker did not end within {self._stops_within:g} s: does a task run for ever?"
                )


class _Controller(TestWorkController):
    """Celery's worker for tests, as it is started in a thread."""


def temporal_settings(servers: Servers) -> dict[str, Any]:
    """Give the settings of an app whose jobs run on Temporal, on a task queue that no other test has."""
    return {
        "job_runner_type": Engine.TEMPORAL,
        "temporal_address": servers.temporal_address,
        "temporal_namespace": "default",
        "temporal_job_task_queue": f"test-{os.getpid()}-{uuid.uuid4().hex[:12]}",
        "temporal_api_key": None,
        "temporal_tls": False,
    }


class TemporalJobs(CeleryJobs):
    """Jobs that a Temporal worker of the app runs, in threads."""

    engine: ClassVar[str] = "ee"

    def start(self) -> None:
        self._fired_until = self.clock.now()
        super().start()

    def next_due(self) -> datetime | None:
        """Give when the next job is due that waits in a workflow."""
        rows = self.app.database.run(lambda own: own.execute(_NEXT).fetchall())
        found: datetime | None = rows[0][0]
        return found

    def next_fire(self) -> datetime | None:
        """Give none: all fires of a travel are made at its end."""
        return None

    def bring_nearer(self, by: timedelta) -> None:
        """Have the jobs that wait in workflows wait less: each begins anew, with its message as of an earlier time.

        Raises:
            UnsupportedOption: One that waits has no workflow (`temporal_light`).
        """
        with self.app.database.transaction() as connection:
            bring_waits_nearer(connection, by)
        for tenant, job_id in self.app.database.run(lambda own: own.execute(_WAITING).fetchall()):
            stored = self.app.jobs.delivery_of(JobKey(tenant=tenant, job_id=job_id))
            if stored is not None and stored.message is not None:
                self._begin_anew(stored, by)

    def _begin_anew(self, stored: StoredDelivery, by: timedelta) -> None:
        delivery: Any = self.app.delivery(Engine.TEMPORAL)
        message = {**stored.message, "headers": rehearsal.earlier(stored.message["headers"], by)}
        message = rehearsal.earlier(message, by)
        try:
            delivery.client.call(
                lambda client: client.get_workflow_handle(stored.task_id).terminate("time travel")
            )
        except Exception as error:
            raise UnsupportedOption(
                f"The clock cannot travel: {stored.type} {stored.task_id} waits for Temporal's own clock ({error}).",
                hint="Test ETAs of light jobs (temporal_light) on `inline` and `ce`.",
            ) from error
        key = {"tenant": stored.key.tenant, "job_id": stored.key.job_id}
        told = {"by": by, "message": json.dumps(message), **key}
        self.app.database.run(lambda own: own.execute(_NEARER, told))
        self.app.recorder.record(delivery.deliver(Envelope.from_json(message)))

    def fire_schedules(self, clock: Any) -> None:
        """Make the jobs of all fires up to that time, as a backfill does."""
        until = self.app.database.run(clock)
        for row in self.app.schedules.list(engine=Engine.TEMPORAL):
            if not row.paused and until > self._fired_until:
                self.app.schedules.backfill(row.schedule_id, self._fired_until, until, row.tenant)
        self._fired_until = until

    def _controller(self) -> type[Any]:
        from jobbridge.temporal.worker.worker import TemporalConsumer

        class Controller(_Controller):
            jobbridge_engine = Engine.TEMPORAL

            def on_before_init(self, **options: Any) -> None:
                self.app.conf.update(
                    worker_cancel_long_running_tasks_on_connection_loss=False,
                    worker_enable_prefetch_count_reduction=False,
                )
                super().on_before_init(**options)

            def setup_defaults(self, **options: Any) -> Any:  # type: ignore[override]  # thirty of Celery's own
                super().setup_defaults(**options)
                self.consumer_cls = TemporalConsumer

        return Controller
