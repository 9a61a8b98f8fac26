"""Events of one job, with what does not matter to a test filled in; and sequences of events for property tests."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from hypothesis import strategies as st

from jobbridge.core.events import (
    Accepted,
    AttemptFailed,
    AwaitsChildren,
    Cancelled,
    Completed,
    Continuation,
    Expired,
    Failed,
    FellBack,
    JobEvent,
    Moved,
    Progressed,
    Redelivered,
    Replaced,
    Requeued,
    Skipped,
    Started,
    Submitted,
)
from jobbridge.core.keys import SYSTEM_TENANT, Engine, JobKey, TenantId
from jobbridge.core.status import JobStatus

FIRST, SECOND, THIRD = (UUID(int=number) for number in (1, 2, 3))
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
FAR_AHEAD = datetime(2999, 1, 1, tzinfo=UTC)


def new_key(tenant: str = SYSTEM_TENANT) -> JobKey:
    return JobKey(tenant=TenantId(tenant), job_id=uuid.uuid4())


@dataclass(frozen=True)
class EventsOf:
    """Makes events of one job."""

    key: JobKey = field(default_factory=new_key)
    engine: Engine = Engine.CELERY

    def submitted(self, delivery: UUID = FIRST, *, retry_of: int | None = None, **more: Any) -> Submitted:
        continues = None if retry_of is None else Continuation(attempt=retry_of, is_retry=True)
        known = {"continues": continues, "queue": "celery", "engine": self.engine, "type": "invoice.send"}
        return Submitted(key=self.key, task_id=str(self.key.job_id), delivery=delivery, **known | more)

    def replaced_by(self, delivery: UUID, *, attempt: int, **more: Any) -> Submitted:
        return self.submitted(delivery, continues=Continuation(attempt=attempt, is_retry=False), **more)

    def suspended(self, delivery: UUID, *, attempt: int = 1, **more: Any) -> Submitted:
        told = Continuation(attempt=attempt, is_retry=False, is_suspension=True)
        return self.submitted(delivery, **{"continues": told, "status": JobStatus.WAITING} | more)

    def accepted(self, delivery: UUID = FIRST, external_id: str = "workflow-1", **more: Any) -> Accepted:
        return Accepted(key=self.key, delivery=delivery, engine=self.engine, external_id=external_id, **more)

    def fell_back(self, delivery: UUID = FIRST, new_delivery: UUID = SECOND) -> FellBack:
        return FellBack(key=self.key, delivery=delivery, new_delivery=new_delivery, engine=Engine.CELERY)

    def started(self, delivery: UUID | None = FIRST, **more: Any) -> Started:
        known = {"queue": "celery", "engine": self.engine, "type": "invoice.send", "worker": "w1@host"}
        return Started(key=self.key, task_id=str(self.key.job_id), delivery=delivery, **known | more)

    def progressed(self, attempt: int = 1, progress: float = 50, message: str | None = None) -> Progressed:
        return Progressed(key=self.key, attempt=attempt, progress=progress, message=message)

    def attempt_failed(self, attempt: int = 1, error: str = "ValueError: once more") -> AttemptFailed:
        return AttemptFailed(key=self.key, attempt=attempt, error=error, traceback="Traceback …")

    def completed(self, attempt: int = 1, **more: Any) -> Completed:
        return Completed(key=self.key, attempt=attempt, **more)

    def failed(self, attempt: int | None = 1, error: str = "ValueError: no", **more: Any) -> Failed:
        return Failed(key=self.key, attempt=attempt, error=error, **more)

    def requeued(self, attempt: int = 1) -> Requeued:
        return Requeued(key=self.key, attempt=attempt, reason="the worker was lost")

    def redelivered(
        self, delivery: UUID = FIRST, new_delivery: UUID = SECOND, attempt: int = 1
    ) -> Redelivered:
        return Redelivered(
            key=self.key,
            attempt=attempt,
            delivery=delivery,
            new_delivery=new_delivery,
            message={"once": "more"},
        )

    def moved(
        self, delivery: UUID = FIRST, new_delivery: UUID = SECOND, attempt: int = 0, **more: Any
    ) -> Moved:
        known = {"engine": Engine.CELERY, "attempt": attempt} | more
        return Moved(key=self.key, delivery=delivery, new_delivery=new_delivery, **known)

    def replaced(self, attempt: int = 1) -> Replaced:
        return Replaced(key=self.key, attempt=attempt)

    def awaits_children(self, attempt: int = 1) -> AwaitsChildren:
        return AwaitsChildren(key=self.key, attempt=attempt)

    def cancelled(self, **more: Any) -> Cancelled:
        return Cancelled(key=self.key, **more)

    def expired(self) -> Expired:
        return Expired(key=self.key)

    def skipped(self) -> Skipped:
        return Skipped(key=self.key, reason="the tenant is suspended")


def any_events(of: EventsOf) -> st.SearchStrategy[list[JobEvent]]:
    """Any events of one job in any order, few enough kinds of each that they often meet."""
    deliveries = st.sampled_from([FIRST, SECOND, THIRD])
    known = st.one_of(st.none(), deliveries)
    attempts = st.integers(1, 3)
    run_at = st.sampled_from([None, LONG_AGO, FAR_AHEAD])
    statuses = st.sampled_from([JobStatus.PENDING, JobStatus.QUEUED, JobStatus.SCHEDULED, JobStatus.WAITING])
    continues = st.one_of(
        st.none(),
        st.builds(Continuation, attempt=attempts, is_retry=st.booleans()),
        st.builds(Continuation, attempt=attempts, is_retry=st.just(False), is_suspension=st.just(True)),
    )
    return st.lists(
        st.one_of(
            st.builds(of.submitted, deliveries, continues=continues, status=statuses, run_at=run_at),
            st.builds(of.accepted, deliveries),
            st.builds(of.fell_back, deliveries, deliveries),
            # Twice: without starts there is little to see.
            st.builds(of.started, known, redelivered=st.booleans()),
            st.builds(of.started, deliveries),
            st.builds(of.progressed, attempts),
            st.builds(of.attempt_failed, attempts),
            st.builds(of.completed, attempts),
            st.builds(of.failed, st.one_of(st.none(), attempts), delivery=known),
            st.builds(of.failed, st.none(), type=st.just("invoice.send"), task_id=st.just("x")),
            st.builds(of.failed, st.none(), waiting_at=st.integers(0, 3)),
            st.builds(of.requeued, attempts),
            st.builds(of.redelivered, deliveries, deliveries, st.integers(0, 3)),
            st.builds(
                of.moved, deliveries, deliveries, st.integers(0, 3), message=st.sampled_from([None, {}])
            ),
            st.builds(of.replaced, attempts),
            st.builds(of.awaits_children, attempts),
            st.builds(of.cancelled),
            st.builds(of.cancelled, delivery=deliveries),
            st.builds(of.expired),
            st.builds(of.skipped),
        ),
        max_size=14,
    )


def soon() -> datetime:
    return datetime.now(UTC) + timedelta(hours=1)
