"""Many new jobs in one statement: rows go as one JSON document, so that the table itself says what their types are.

Only jobs of which there is no row yet: what is there already stays as it is, and is told by its absence from the
answer. Those are submitted one by one (`transitions.SUBMIT`), which knows what may be sent again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from typing import Any, LiteralString

from jobbridge.core.events import Submitted
from jobbridge.store.values import storable_text

_INSERTED: LiteralString = """moved AS (
    INSERT INTO public.jobs AS job (
        tenant, job_id, task_id, type, status, metadata, user_id, runner_type, external_id, queue, priority,
        run_at, expires_at, root_id, parent_id, group_id, delivery, message, undelivered_since,
        attempt, max_attempts, created_at, updated_at
    )
    SELECT
        tenant, job_id, task_id, type,
        CASE WHEN status NOT IN ('queued', 'scheduled') THEN status
             WHEN run_at > now() THEN 'scheduled'
             ELSE 'queued' END,
        metadata, user_id, runner_type, external_id, queue, priority,
        run_at, expires_at, root_id, parent_id, group_id, delivery, message,
        CASE WHEN message IS NOT NULL THEN clock_timestamp() END,
        0, max_attempts, clock_timestamp(), clock_timestamp()
    FROM json_populate_recordset(NULL::public.jobs, %(rows)s::json)
    ON CONFLICT (tenant, job_id) DO NOTHING
    RETURNING job.job_id
)"""

#: Jobs whose message is in the row: the relay is woken once.
SUBMIT_MANY: LiteralString = f"""WITH {_INSERTED}
SELECT job_id, CASE WHEN row_number() OVER () = 1 THEN pg_notify('jobbridge_relay', '') END FROM moved
"""


@cache
def submit_many_with(put: LiteralString, told: LiteralString) -> LiteralString:
    """Give the statement with the jobs' messages stored by it.

    Args:
        put: The CTE `put`, which stores the message of each `job_id` of `moved`.
        told: What is selected from `put`, once, to wake who waits for it.
    """
    return f"WITH {_INSERTED}, {put}\nSELECT job_id, (SELECT {told} FROM put) FROM moved\n"


def rows_of(submitted: Sequence[Submitted]) -> str:
    """Write the rows as the document that the statements take."""
    return storable_text([_row_of(event) for event in submitted])


def _row_of(event: Submitted) -> dict[str, Any]:
    message = event.message
    return {
        "tenant": event.key.tenant,
        "job_id": event.key.job_id,
        "task_id": event.task_id,
        "type": event.type,
        "status": event.status.value,
        "metadata": event.metadata,
        "user_id": event.user_id,
        "runner_type": event.engine.value,
        "external_id": event.external_id,
        "queue": event.queue,
        "priority": event.priority,
        "run_at": event.run_at,
        "expires_at": event.expires_at,
        "root_id": event.root_id,
        "parent_id": event.parent_id,
        "group_id": event.group_id,
        "delivery": event.delivery,
        "message": None if message is None else json.dumps(message, separators=(",", ":")),
        "max_attempts": event.max_attempts,
    }
