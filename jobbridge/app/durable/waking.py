"""Waking a job that sleeps: what callers use.

Message, steps and row change in one transaction. On Temporal the row is then owed to the relay, which hands its message
to the workflow; whichever comes first, that or the workflow's own timer, executes it, and the other finds it executed.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING
from uuid import UUID

from jobbridge.app.errors import sending
from jobbridge.app.publish.commands import find_job
from jobbridge.broker import make_due
from jobbridge.codec.rows import place_of
from jobbridge.core.envelope import Envelope
from jobbridge.core.keys import Engine
from jobbridge.core.status import JobStatus
from jobbridge.errors import UnsupportedOption
from jobbridge.store.waits import wakes

if TYPE_CHECKING:
    from jobbridge.app.application import Celery
    from jobbridge.postgres.caller_connection import DriverConnection
    from jobbridge.store.jobs.rows import JobRow


@sending()
def wake_job(
    app: Celery, job_id: UUID | str, tenant: str | None = None, *, woken_by: str | None = None
) -> bool:
    """Have a job go on that sleeps (`ctx.sleep`, `ctx.sleep_until`, a step's next try, `Snooze`).

    Within `app.transaction(...)` as a part of that.

    Args:
        job_id: Its id.
        tenant: Whose job; None: anybody's.
        woken_by: Who, for the job's page.

    Returns:
        False: it does not sleep (any more). One that waits for an event is sent that instead.

    Raises:
        JobNotFound: There is no such job (of that tenant).
        UnsupportedOption: Its message is with a broker that is not in this database.
        DatabaseUnavailable: Postgres cannot be reached.
    """
    found = find_job(app, job_id, tenant)
    if found.runner_type is Engine.CELERY and not app.shares_database_with_broker:
        raise UnsupportedOption(
            "The broker is not in the database of the job tables: a job that sleeps cannot be woken.",
            hint="Use a jobbridge+postgresql:// broker on the same database.",
        )
    with app.database.transaction(app.caller_connection) as connection:
        app.jobs.lock(found.key, connection)
        row = app.jobs.get(found.key, connection)
        if row is None or row.status is not JobStatus.SCHEDULED or row.started_at is None:
            return False
        if not _send_on(app, connection, row):
            return False
        wakes.end_sleeps(connection, row.key, woken_by=woken_by)
    return True


def _send_on(app: Celery, connection: DriverConnection, row: JobRow) -> bool:
    """Have its message be taken; False: that is on its way already."""
    if row.runner_type is Engine.CELERY:
        if not make_due(connection, row.task_id):
            return False
        wakes.queue(connection, row.key)
        return True
    stored = app.jobs.delivery_of(row.key, connection)
    if stored is None or stored.message is None:
        return False
    # By `waits` the relay tells it from one that is new, or a retry: its workflow runs, and is to go on.
    message = replace(Envelope.from_json(stored.message), waits=True).to_json()
    codec = app.database.codec
    if codec:
        message = codec.seal_json(message, place_of(row.job_id, "message"), is_exact=True)
    return wakes.owe(connection, row.key, message)
