"""What was given up: jobs that failed for good, on either engine, and messages that have no row.

A message that the broker gave up is told by its job's row, if it has one; it is a letter of its own only if it has none
(a plain Celery message, or one of a job that was deleted).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING

from jobbridge.broker import DeadLetter, dead_letters
from jobbridge.core.keys import Engine, JobKey, TenantId, job_id_for
from jobbridge.core.masking.error_groups import group_of, message_of
from jobbridge.store.workers.dead import DeadJob, Place, clock, dead_page, known_jobs

if TYPE_CHECKING:
    from jobbridge.app.application import Celery

#: Letters that one statement reads.
PAGE = 200
#: Letters that are looked at to find groups, unless said otherwise.
LOOKED_AT = 100_000
#: What the id of a message begins with; that of a job is its own.
MESSAGE = "message-"


@dataclass(frozen=True, kw_only=True, slots=True)
class DeadFilter:
    """Which; what is None does not matter.

    Attributes:
        type: The handler's name.
        group: Of errors that are alike, as lists name it.
        died_before: It was given up before that instant.
        ids: Jobs, and messages as lists name them; None: whichever.
    """

    tenant: TenantId | None = None
    type: str | None = None
    group: str | None = None
    engine: Engine | None = None
    queue: str | None = None
    died_before: datetime | None = None
    ids: frozenset[str] | None = None

    def fits(self, letter: Letter) -> bool:
        """Whether that one is meant."""
        return (
            self.type in (None, letter.type)
            and self.group in (None, letter.group)
            and self.engine in (None, letter.engine)
            and self.queue in (None, letter.queue)
            and (self.ids is None or letter.id in self.ids)
            and (self.tenant is None or (letter.key is not None and letter.key.tenant == self.tenant))
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Letter:
    """What was given up.

    Attributes:
        id: The job's id, or `message-` and the number of the message.
        key: The job's; None: it is a message without a row.
        task_id: Celery's.
        attempts: How often it was tried.
        error: The first line, without passwords.
        group: Names its type and error; those of one group failed alike.
    """

    id: str
    key: JobKey | None
    task_id: str | None
    type: str
    engine: Engine
    queue: str | None
    attempts: int
    error: str
    died_at: datetime
    group: str


@dataclass(frozen=True, kw_only=True, slots=True)
class DeadGroup:
    """Those of one type that failed alike.

    Attributes:
        error: Of the last one.
    """

    group: str
    type: str
    error: str
    letters: int
    engines: Sequence[Engine]
    first_at: datetime
    last_at: datetime


@dataclass(slots=True)
class Groups:
    """The groups, the largest first.

    Attributes:
        looked_at: Letters that are in them.
        is_cut: There are more letters than were looked at: the latest are missing.
    """

    groups: list[DeadGroup] = field(default_factory=list)
    looked_at: int = 0
    is_cut: bool = False


def letters(app: Celery, where: DeadFilter) -> Iterator[Letter]:
    """Give what was given up until now, the first to die first; jobs before messages. Reads as it is read."""
    before = where.died_before or clock(app.database)
    if where.ids is not None:
        known = (by_id(app, text) for text in sorted(where.ids))
        told = [letter for letter in known if letter is not None and letter.died_at < before]
        yield from filter(where.fits, sorted(told, key=lambda letter: letter.died_at))
        return
    for letter in _jobs(app, where, before):
        if where.fits(letter):
            yield letter
    if where.tenant is None and where.engine is not Engine.TEMPORAL and app.shares_database_with_broker:
        yield from filter(where.fits, _messages(app, before))


def _jobs(app: Celery, where: DeadFilter, before: datetime) -> Iterator[Letter]:
    after: Place | None = None
    while True:
        page = dead_page(
            app.database, before=before, after=after, tenant=where.tenant, type_=where.type, limit=PAGE
        )
        yield from map(_letter_of_job, page)
        if len(page) < PAGE:
            return
        after = (page[-1].died_at, page[-1].key.job_id)


def _letter_of_job(job: DeadJob) -> Letter:
    return Letter(
        id=str(job.key.job_id),
        key=job.key,
        task_id=job.task_id,
        type=job.type,
        engine=job.engine,
        queue=job.queue,
        attempts=job.attempts,
        error=message_of(job.error),
        died_at=job.died_at,
        group=group_of(job.type, job.error),
    )


def _messages(app: Celery, before: datetime) -> Iterator[Letter]:
    after = 0
    while True:
        with app.database.connection() as connection:
            page = dead_letters(connection, before=before, after=after, limit=PAGE)
        ids = {each.id: job_id_for(each.correlation_id) for each in page if each.correlation_id}
        known = known_jobs(app.database, set(ids.values()))
        yield from (_letter_of(each) for each in page if ids.get(each.id) not in known)
        if len(page) < PAGE:
            return
        after = page[-1].id


def _letter_of(message: DeadLetter) -> Letter:
    type_, error = message.task or "(no task)", f"Dead letter: {message.reason}"
    return Letter(
        id=f"{MESSAGE}{message.id}",
        key=None,
        task_id=message.correlation_id,
        type=type_,
        engine=Engine.CELERY,
        queue=message.queue,
        attempts=message.deliveries,
        error=error,
        died_at=message.died_at,
        group=group_of(type_, error),
    )


def groups(app: Celery, where: DeadFilter, *, limit: int = LOOKED_AT) -> Groups:
    """Put together what failed alike.

    Args:
        app: Whose.
        where: Which.
        limit: Letters that are looked at, at most.
    """
    found = Groups()
    known: dict[str, DeadGroup] = {}
    for letter in islice(letters(app, where), limit + 1):
        if found.looked_at == limit:
            found.is_cut = True
            break
        found.looked_at += 1
        known[letter.group] = _with(known.get(letter.group), letter)
    found.groups = sorted(known.values(), key=lambda each: (-each.letters, each.type, each.group))
    return found


def _with(group: DeadGroup | None, letter: Letter) -> DeadGroup:
    if group is None:
        return DeadGroup(
            group=letter.group,
            type=letter.type,
            error=letter.error,
            letters=1,
            engines=(letter.engine,),
            first_at=letter.died_at,
            last_at=letter.died_at,
        )
    is_newer = letter.died_at >= group.last_at
    return replace(
        group,
        letters=group.letters + 1,
        error=letter.error if is_newer else group.error,
        engines=tuple(sorted({*group.engines, letter.engine})),
        first_at=min(group.first_at, letter.died_at),
        last_at=max(group.last_at, letter.died_at),
    )


def by_id(app: Celery, text: str) -> Letter | None:
    """Find one by its id; None: there is no such one, or it is not given up (any more)."""
    if text.startswith(MESSAGE) and text.removeprefix(MESSAGE).isdecimal():
        number = int(text.removeprefix(MESSAGE))
        with app.database.connection() as connection:
            found = dead_letters(
                connection, before=datetime.max.replace(tzinfo=UTC), after=number - 1, limit=1
            )
        return next((_letter_of(each) for each in found if each.id == number), None)
    row = app.jobs.find(job_id_for(text))
    if row is None or row.status != "failed":
        return None
    died_at = row.completed_at or row.updated_at
    job = DeadJob(
        key=row.key,
        task_id=row.task_id,
        type=row.type,
        engine=row.runner_type,
        queue=row.queue,
        attempts=row.attempt,
        error=row.error,
        died_at=died_at,
    )
    return _letter_of_job(job)
