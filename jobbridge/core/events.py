"""What happens to a job, as data.

Signal handlers, activities and commands translate into these; the recorder applies them. An event says which
attempt, or which delivery, it speaks of, so that one which comes late, twice or out of order changes nothing.

`delivery` names one hand-over of a job to an engine. A retry, or `replace`, makes a new one. The row holds
the delivery that may run: an attempt that comes by an older one does not start. A message that the broker delivers
again (its worker died) is the same delivery, and the broker has only one holder of it at a time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from jobbridge.core.keys import Engine, JobKey
from jobbridge.core.status import JobStatus

Json = Any  # what json.loads returns


@dataclass(frozen=True, kw_only=True, slots=True)
class Continuation:
    """That a job was sent again from inside its own running attempt."""

    attempt: int
    is_retry: bool  # else `replace`: the same job goes on as another task
    is_suspension: bool = (
        False  # it sleeps or waits, and this attempt goes on: the start that follows has its number
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Submitted:
    """A job was asked for, and its message is in the same transaction (CE) or in the row itself (EE).

    No row: it is made, with `status`. A final row: the job starts anew (attempt numbers go on). A row in `queued`
    without a delivery (left by `Replaced`) takes this one. A row in `processing` at `continues.attempt` becomes
    `retrying` (`is_retry`) or `status`; its attempt is put back by one if that is suspended. Any other row: refused as
    a duplicate.
    """

    key: JobKey
    task_id: str
    type: str
    engine: Engine
    delivery: UUID
    queue: str
    # pending (EE), queued, or scheduled when run_at is in the future; waiting, of a suspended attempt
    status: JobStatus = JobStatus.QUEUED
    continues: Continuation | None = None
    priority: int = 0
    run_at: datetime | None = None
    expires_at: datetime | None = None
    singleton_key: str | None = None
    max_attempts: int | None = None
    user_id: UUID | None = None
    metadata: Json = field(default_factory=dict)
    external_id: str | None = None
    message: Json = None  # EE: what the relay delivers; None on CE, where the broker holds it
    is_relayed: bool = (
        True  # EE: the relay is woken. It would be as fast as who hands it over, and do it again
    )
    broker: str | None = None  # CE: which, if that is not the one in this database
    root_id: UUID | None = None
    parent_id: UUID | None = None
    group_id: str | None = None
    chord_id: str | None = None  # the chord that waits for its end, or for that of the chain that it begins
    chord_index: int | None = None  # its place among the chord's parts; None: it is none, but leads to one


@dataclass(frozen=True, kw_only=True, slots=True)
class Accepted:
    """The engine has it: `pending` becomes `queued`, or `scheduled` when run_at is in the future.

    Applies only while the row holds this delivery. Later states keep theirs; the external ids are stored all the same.

    Attributes:
        is_alone: It is all that its transaction writes, which then need not wait for the disk.
    """

    key: JobKey
    delivery: UUID
    engine: Engine
    external_id: str
    external_run_id: str | None = None
    is_alone: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class FellBack:
    """Its engine cannot be reached and did not start it; another one takes it, by a message in this transaction.

    Applies to `pending` while the row holds `delivery`; that one cannot start from then on.
    """

    key: JobKey
    delivery: UUID
    new_delivery: UUID
    engine: Engine


@dataclass(frozen=True, kw_only=True, slots=True)
class Started:
    """An attempt wants to start: the claim.

    From pending, queued, scheduled, retrying: when the deliveries agree or either side has none (but a row left by
    `Replaced` waits for its new message, and its old one does not start). From processing:
    only by the same delivery, or without one when `redelivered`. The attempt number grows by one.
    Not while the queue is paused, if the message `goes_back` to it.
    A missing row is made (sent by a client that does not keep our books).
    """

    key: JobKey
    task_id: str
    type: str
    engine: Engine
    delivery: UUID | None
    queue: str
    worker: str
    worker_number: int | None = None  # its number in `job_workers`
    redelivered: bool = False
    goes_back: bool = False
    max_attempts: int | None = None
    external_id: str | None = None
    external_run_id: str | None = None
    metadata: Json = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Progressed:
    """The running attempt tells how far it is. Applies to `processing` at that attempt."""

    key: JobKey
    attempt: int
    progress: float  # 0 to 100
    message: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class AttemptFailed:
    """An attempt ended and another will follow: closes the attempt's step, keeps error and traceback.

    `processing` at that attempt becomes `retrying`; if it is so already (the retry's own Submitted came first) or
    beyond, only the attempt's step is written.
    """

    key: JobKey
    attempt: int
    error: str
    traceback: str | None = None


#: The `result_type` of an end that Celery's result backends tell nothing of: its result is ignored or forgotten, or its
#: task raised Ignore.
HIDDEN = "hidden"


@dataclass(frozen=True, kw_only=True, slots=True)
class Completed:
    """`processing` at that attempt becomes `completed`."""

    key: JobKey
    attempt: int
    is_part: bool = False  # of a chord, which counts it in the same moment
    result: Json = None  # readable form
    result_payload: bytes | None = None  # what the result backend decodes, when JSON cannot carry it
    result_type: str | None = None  # its content type; or HIDDEN


@dataclass(frozen=True, kw_only=True, slots=True)
class Failed:
    """It failed for good.

    With an attempt: from `processing` at that attempt. Without one (unknown task, dead letter, a chain's earlier
    link failed, cannot be delivered): from any non-final status, and a missing row is made from `type`, `task_id`,
    `engine`, `external_id`, `root_id`, `parent_id` and `chord_id`.
    With `delivery`, only while the row holds it. With `waiting_at`, only while it waits after that many attempts.
    """

    key: JobKey
    attempt: int | None
    error: str
    traceback: str | None = None
    result: Json = None  # the exception as the result backend encodes it
    result_payload: bytes | None = None
    result_type: str | None = None
    delivery: UUID | None = None
    waiting_at: int | None = None
    type: str | None = None
    task_id: str | None = None
    engine: Engine = Engine.CELERY
    external_id: str | None = None  # None: the task id
    root_id: UUID | None = None
    parent_id: UUID | None = None
    chord_id: str | None = None
    chord_index: int | None = None
    tells_chain: bool = False  # the links that were to follow are told as well, by events of their own


@dataclass(frozen=True, kw_only=True, slots=True)
class Requeued:
    """`processing` at that attempt goes back to `queued`, same delivery: its worker was lost, or it was rejected."""

    key: JobKey
    attempt: int
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Redelivered:
    """Its engine has lost it: any status but a final one becomes `pending` by a new delivery, for the relay.

    Only at that attempt and by that delivery. Whoever has the old message still does not start it.
    """

    key: JobKey
    attempt: int
    delivery: UUID
    new_delivery: UUID
    message: Json


@dataclass(frozen=True, kw_only=True, slots=True)
class Moved:
    """A job that waits goes to another engine, or from another broker: by a new delivery, in this transaction.

    From pending, queued, scheduled, retrying, at that attempt and by that delivery, which cannot start from then on.
    """

    key: JobKey
    attempt: int
    delivery: UUID
    new_delivery: UUID
    engine: Engine
    message: Json = None  # for Temporal: what the relay delivers; None: the broker has it
    external_id: str | None = None  # None: the one it has


@dataclass(frozen=True, kw_only=True, slots=True)
class Replaced:
    """`processing` at that attempt goes back to `queued` without a delivery.

    A chain took its place, whose last task has its id and is sent later.
    """

    key: JobKey
    attempt: int


@dataclass(frozen=True, kw_only=True, slots=True)
class AwaitsChildren:
    """`processing` at that attempt stays so, held by no worker and by no delivery: its children run now.

    The last of them sends it again, which `continues` this attempt.
    """

    key: JobKey
    attempt: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Cancelled:
    """Any non-final status becomes `cancelled`. With `delivery`, only while the row holds it."""

    key: JobKey
    delivery: UUID | None = None
    reason: str | None = None
    cancelled_by: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Expired:
    """Its time to live passed before it ran: from pending, queued, scheduled, retrying."""

    key: JobKey


@dataclass(frozen=True, kw_only=True, slots=True)
class Skipped:
    """It must not run (tenant suspended): from pending, queued, scheduled, retrying."""

    key: JobKey
    reason: str


JobEvent = (
    Submitted
    | Accepted
    | FellBack
    | Started
    | Progressed
    | AttemptFailed
    | Completed
    | Failed
    | Requeued
    | Redelivered
    | Moved
    | Replaced
    | AwaitsChildren
    | Cancelled
    | Expired
    | Skipped
)


#: Why an event was refused that may be allowed a moment later.
CONTENDED = "another worker holds the job, or it keeps changing"
#: Why an attempt does not start that will when the queue is resumed.
QUEUE_PAUSED = "its queue is paused"


@dataclass(frozen=True, kw_only=True, slots=True)
class Recorded:
    """What became of an event.

    Attributes:
        applied: False: it was late, repeated or not allowed, and nothing changed.
        status: The row's status afterwards; None when there is no row.
        attempt: The row's attempt afterwards. After `Started`, the number of the attempt that may now run.
        reason: Why it was refused.
        outcome: For Submitted: created, restarted, continued, adopted, duplicate or repeated.
        parent: The parent whose child has ended by it.
        chord: The chord that counted it as a part, or was broken by it.
        is_chord_due: That chord waits for nothing any more.
    """

    applied: bool
    status: JobStatus | None
    attempt: int = 0
    reason: str | None = None
    outcome: str | None = None
    parent: JobKey | None = None
    chord: str | None = None
    is_chord_due: bool = False
