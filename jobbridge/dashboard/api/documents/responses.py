"""What the API answers with. Each model is exact: what is not in it is not told."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from jobbridge.core.keys import Engine
from jobbridge.core.status import JobStatus

EXAMPLE_ID = "0199d3b1-7a52-7c31-9f5e-0a6f4e1b2c3d"


class Exact(BaseModel):
    """The base of what is sent, either way: nothing beside its fields."""

    model_config = ConfigDict(extra="forbid", from_attributes=True)


class Answer(Exact):
    """The base of all answers."""


class Flaw(Answer):
    """One value that does not fit."""

    where: str = Field(examples=["body.priority"])
    what: str = Field(examples=["Input should be less than or equal to 9"])


class Problem(Answer):
    """Why something was not done, and what to do."""

    error: str = Field(examples=["There is no job 42."])
    hint: str = Field(examples=["List jobs with GET /api/v1/jobs."])
    problems: list[Flaw] = []


class Job(Answer):
    """A job."""

    job_id: UUID = Field(examples=[EXAMPLE_ID])
    task_id: str = Field(description="Celery's id of it; mostly the same.")
    tenant: str = Field(examples=["acme"])
    type: str = Field(examples=["generate-invoice"])
    status: JobStatus
    engine: Engine
    queue: str | None
    priority: int
    attempt: int = Field(description="0: it has not started.")
    max_attempts: int | None
    progress: float | None = Field(description="0 to 100.")
    progress_message: str | None
    error: str | None
    user_id: UUID | None
    root_id: UUID | None
    parent_id: UUID | None
    group_id: str | None
    singleton_key: str | None
    external_id: str | None
    external_run_id: str | None
    worker: str | None = Field(description="Who runs it; not told to a token that is bound to a tenant.")
    cancelled_by: str | None
    cancel_reason: str | None
    created_at: datetime
    updated_at: datetime
    run_at: datetime | None
    expires_at: datetime | None
    started_at: datetime | None
    completed_at: datetime | None


class Step(Answer):
    """An attempt, or a part of one that the handler reports."""

    sequence: int
    step_name: str = Field(examples=["attempt"])
    step_key: str | None
    attempt: int
    status: JobStatus
    result: Any
    error: str | None
    began_at: datetime
    ended_at: datetime | None


class JobDetail(Job):
    """A job with its data, result and steps. What looks like a secret is masked."""

    metadata: dict[str, Any]
    result: Any
    traceback: str | None
    steps: list[Step]


class JobPage(Answer):
    """Some jobs, the newest first."""

    jobs: list[Job]
    next: str | None = Field(description="Pass it as `before`; null: there are no more.")
    searched_to: datetime | None = Field(
        description="The search was ended here: older ones may match, and `next` goes on."
    )


class SentJob(Answer):
    """What came of asking for a job."""

    outcome: Annotated[
        str,
        Field(
            pattern="^(created|deduplicated|replaced|repeated)$",
            description="deduplicated: this other job holds the singleton key. repeated: this job was made when the "
            "request came first.",
        ),
    ]
    job: Job


class Ended(Answer):
    """A job, at its end or when the time was over."""

    ended: bool
    job: JobDetail


class Cancelled(Answer):
    """What came of cancelling."""

    cancelled: bool = Field(description="False: it had ended before.")
    job: Job


class Woken(Answer):
    """What came of waking."""

    woken: bool = Field(description="False: it does not sleep.")
    job: Job


class Count(Answer):
    """How many jobs there are."""

    engine: Engine
    status: JobStatus
    jobs: int


class Counts(Answer):
    """All jobs, by engine and status; what is zero is left out."""

    counts: list[Count]


class Link(Answer):
    """A link for a customer. It cannot be shown again."""

    url: str = Field(examples=["/public/jobs/3f9c…"], description="On this host.")
    expires_at: datetime


class EventSent(Answer):
    """What came of an event."""

    outcome: Annotated[
        str,
        Field(
            pattern="^(delivered|kept|repeated)$",
            description="delivered: a job waited for it, and goes on. kept: the next wait for it takes it. repeated: "
            "one with this `once` was sent before.",
        ),
    ]


class Wait(Answer):
    """What a suspended job waits for."""

    kind: str = Field(pattern="^(sleep|event|call)$")
    name: str = Field(examples=["approval"])
    key: str | None = Field(description="The event may be sent to this key, too.")
    until: datetime | None = Field(description="The end of the sleep, or the time-out.")
    pending: int = Field(description="Of a call: so many called jobs have not ended.")
    since: datetime


class Event(Answer):
    """An event that was sent. What looks like a secret is masked."""

    event_id: UUID
    name: str = Field(examples=["approval"])
    job_id: UUID | None
    key: str | None
    payload: Any
    sent_by: str | None
    sent_at: datetime
    consumed_at: datetime | None = Field(description="Null: it is kept until a job waits for it.")


class JobEvents(Answer):
    """What a job waits for now, and the events that were sent to it, the oldest one first."""

    wait: Wait | None
    events: list[Event]


class Revoked(Answer):
    """How many links are of no use from now on."""

    revoked: int


class Task(Answer):
    """Something that can be sent."""

    name: str = Field(examples=["generate-invoice"])
    description: str | None
    is_handler: bool = Field(description="Made with @job: it takes `data`. Others take `args` and `kwargs`.")
    data_schema: dict[str, Any] | None = Field(description="JSON schema of its data, if it declares one.")


class Tasks(Answer):
    """What can be sent, by name."""

    tasks: list[Task]


class Worker(Answer):
    """A worker process."""

    name: str
    engine: Engine
    host: str
    pid: int
    queues: list[str]
    started_at: datetime
    seen_at: datetime
    is_alive: bool


class Workers(Answer):
    """All workers, the oldest first."""

    workers: list[Worker]


class Schedule(Answer):
    """Something that recurs."""

    schedule_id: UUID
    name: str = Field(examples=["nightly-report"])
    tenant: str
    task: str
    kind: str = Field(examples=["cron"])
    spec: str = Field(examples=["0 2 * * *"])
    zone: str = Field(examples=["Europe/Berlin"])
    engine: Engine
    queue: str | None
    overlap: str
    paused: bool
    note: str | None
    next_fire_at: datetime | None
    last_fire_at: datetime | None
    last_job_id: UUID | None


class Schedules(Answer):
    """Schedules, by tenant and name."""

    schedules: list[Schedule]


class Fire(Answer):
    """What became of one planned instant."""

    fire_at: datetime
    trigger: str
    outcome: str
    job_id: UUID | None
    reason: str | None
    missed_until: datetime | None
    fired_at: datetime


class ScheduleDetail(Schedule):
    """A schedule with its next instants and its newest fires."""

    upcoming: list[datetime]
    fires: list[Fire]


class FiredNow(Answer):
    """The job that was made."""

    job_id: UUID


class Backfilled(Answer):
    """Which fires were made up for."""

    made: list[datetime]


class Waiting(Answer):
    """What waits in a queue on one engine."""

    engine: Engine
    ready: int | None = Field(description="What a worker could take now; null: it is not known.")
    is_more: bool = Field(description="It was not counted to its end.")
    later: int | None = Field(description="What is not due yet, where the engine tells.")
    oldest_at: datetime | None


class Pause(Answer):
    """That a queue is paused."""

    paused_at: datetime
    paused_by: str | None
    note: str | None


class Queue(Answer):
    """A queue, on whichever engines use it."""

    name: str = Field(examples=["celery"])
    waiting: list[Waiting]
    workers: list[str] = Field(description="The names of the living workers that serve it.")
    pause: Pause | None


class Queues(Answer):
    """Queues, by name."""

    queues: list[Queue]
    next: str | None = Field(description="Pass it as `after`; null: there are no more.")
    problem: str = Field(
        description="Why it is not known, or not of all queues, what waits in Temporal; empty: it is."
    )


class QueuePaused(Answer):
    """What came of pausing or resuming."""

    name: str
    paused: bool
    changed: bool = Field(description="False: it was so before.")
    warning: str | None = Field(
        None, description="Nobody knows a queue of that name: perhaps it is another's."
    )
