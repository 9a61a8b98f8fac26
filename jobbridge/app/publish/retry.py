"""Run a job again that has ended: the same job with a further attempt, or a new one with the same arguments.

In one transaction the row is locked, looked at and sent again by a new delivery, so that of two who ask at once one
is refused. The finished steps of the job stay, so a handler with keyed steps goes on where it stopped.
So do recorded calls (decision 0032); but what failed is made again, and a job that was undone begins anew.

A cancelled job never turns completed, and workers remember the ids of tasks that they were told to revoke: it can
only be sent as a new job.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

from jobbridge.app.errors import sending
from jobbridge.app.publish.commands import arguments_for, find_job, find_task
from jobbridge.app.publish.message.ids import new_task_id
from jobbridge.codec.rows import open_job
from jobbridge.core.enqueue import Outcome
from jobbridge.core.keys import Engine, JobKey
from jobbridge.core.status import FINAL, JobStatus
from jobbridge.errors import CannotRetry, JobNotFound, RanAgain, UnsupportedOption
from jobbridge.store.batches.progress import BATCH
from jobbridge.store.waits.superseding import step_names, supersede

if TYPE_CHECKING:
    from jobbridge.app.application import Celery
    from jobbridge.app.options import Sent
    from jobbridge.store.jobs.rows import JobRow


_ENDED_FOR_GOOD = frozenset({JobStatus.COMPLETED, JobStatus.CANCELLED})


@sending()
def retry_job(
    app: Celery,
    job_id: UUID | str,
    tenant: str | None = None,
    *,
    engine: Engine | str | None = None,
    as_new: bool = False,
    from_step: str | None = None,
    failed_before: datetime | None = None,
) -> JobRow:
    """Send a job again that failed, expired or was skipped.

    What was to follow it (the rest of its chain, the body of its chord, callbacks) is not sent: that ended with it.

    Args:
        job_id: The job.
        tenant: Only if it is this tenant's.
        engine: On this engine; by default the one that it was on.
        as_new: As a job of its own (`metadata.retry_of` names the old one): any job that has ended.
        from_step: From the first step of this name on: it, and what was recorded after it, is made again; what is
            before it is not. Also a job that completed.
        failed_before: Only if it ended before that instant, and did not run again since.

    Returns:
        The row of the job that was sent.

    Raises:
        CannotRetry: It has not ended, it completed or was cancelled (and `as_new` is not set), its arguments are
            not in the row, or it has no such step.
        UnknownHandler: No task of its type is registered here.
        JobNotFound: There is no such job (of that tenant).
        EncryptionError: Its arguments are encrypted, and cannot be opened here.
    """
    with _locked(app, find_job(app, job_id, tenant).key) as locked:
        _check(locked, as_new=as_new, from_step=from_step)
        if failed_before is not None and (
            locked.completed_at is None or locked.completed_at >= failed_before
        ):
            raise RanAgain(
                f"{locked.type} {locked.job_id} ran again meanwhile.", hint="Look at it once more."
            )
        if from_step is not None:
            _supersede(app, locked, from_step)
        if not as_new:
            app.durable.forget_failed(locked.key)
        sent = _send(app, locked, engine or locked.runner_type, as_new=as_new)
    return _present(app.jobs.get(sent, app.caller_connection), sent)


@contextmanager
def _locked(app: Celery, key: JobKey) -> Iterator[JobRow]:
    if not app.shares_database_with_broker:  # then the message cannot be part of the transaction
        yield _present(app.jobs.get(key), key)
        return
    with app.database.transaction(app.caller_connection) as connection:
        app.jobs.lock(key, connection)
        row = open_job(app.database.codec, _present(app.jobs.get(key, connection), key))
        with app.enqueue_on(connection):
            yield row


def _present(row: JobRow | None, key: JobKey) -> JobRow:
    if row is None:
        raise JobNotFound.with_id(str(key.job_id))
    return row


def _supersede(app: Celery, row: JobRow, name: str) -> None:
    with app.database.transaction(app.caller_connection) as connection:
        if supersede(connection, row.key, name):
            return
        known = step_names(connection, row.key)
    raise CannotRetry(
        f"{row.type} {row.job_id} has no step {name!r} that was recorded.",
        hint=f"Its steps are: {', '.join(known)}." if known else "Retry the whole job.",
    )


def _check(row: JobRow, *, as_new: bool, from_step: str | None) -> None:
    if as_new and from_step is not None:
        raise UnsupportedOption(
            "A new job has no steps yet, so that it cannot begin at one.",
            hint="Leave out as_new, or from_step.",
        )
    if row.status not in FINAL:
        raise CannotRetry(f"{row.type} {row.job_id} is {row.status.value}.", hint="Wait until it has ended.")
    goes_on = from_step is not None and row.status is JobStatus.COMPLETED
    if not as_new and not goes_on and row.status in _ENDED_FOR_GOOD:
        raise CannotRetry(
            f"{row.type} {row.job_id} is {row.status.value}, and stays so.",
            hint="Send it as a new job with `jobbridge jobs retry --new`, if it is to run again.",
        )
    if "data" not in row.metadata:
        raise CannotRetry(
            f"The arguments of {row.type} {row.job_id} are not in its row: they are too large, or no JSON.",
            hint="Send it again from where it came.",
        )


def _send(app: Celery, row: JobRow, engine: Engine | str, *, as_new: bool) -> JobKey:
    args, kwargs = arguments_for(find_task(app, row.type), row.metadata["data"])
    metadata = {name: value for name, value in row.metadata.items() if name != "data"}
    result = app.send_task(
        row.type,
        args=args,
        kwargs=kwargs,
        task_id=new_task_id() if as_new else row.task_id,
        queue=row.queue,
        priority=row.priority or None,
        tenant=row.tenant,
        user_id=row.user_id,
        engine=engine,
        job_metadata={**metadata, "retry_of": str(row.job_id)} if as_new else metadata,
        **({} if as_new or BATCH not in metadata else {"headers": {BATCH: metadata[BATCH]}}),
        **({} if row.singleton_key is None else {"singleton_key": row.singleton_key}),
    )
    sent: Sent | None = getattr(result, "job", None)
    if sent is None or sent.outcome is Outcome.DEDUPLICATED:
        holder = "another job" if sent is None else f"job {sent.key.job_id}"
        raise CannotRetry(
            f"{row.type} {row.job_id} was not sent: {holder} has its place.",
            hint="Look at that one with `jobbridge jobs show`.",
        )
    return sent.key
