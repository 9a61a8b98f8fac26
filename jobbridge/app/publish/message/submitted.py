"""From a message's headers and options to the event that makes its row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from uuid import UUID

from jobbridge.app.publish.message.continuing import begins
from jobbridge.app.publish.message.fields import instant, optional_id, readable_arguments
from jobbridge.core.chords import place_of
from jobbridge.core.events import Submitted
from jobbridge.core.keys import Engine, JobKey
from jobbridge.core.status import JobStatus

if TYPE_CHECKING:
    from jobbridge.app.options import JobOptions


def submitted_of(
    task: Any,
    body: Any,
    publish_options: Mapping[str, Any],
    options: JobOptions,
    *,
    key: JobKey,
    task_id: str,
    engine: Engine,
    delivery: UUID,
    queue: str,
    status: JobStatus,
    **more: Any,
) -> Submitted:
    """Give the event by which a job is asked for.

    Args:
        task: The task if it is known here.
        body: Arguments, and what follows; not yet serialized.
        publish_options: Of the producer.
        options: JobBridge's own.
        key: The job.
        task_id: Celery's.
        engine: Which is to run it.
        delivery: By which it goes there.
        queue: Where to.
        status: That it has if it is due.
        more: What else there is to say of it.
    """
    headers = publish_options["headers"]
    max_retries, root_id = getattr(task, "max_retries", None), headers.get("root_id")
    run_at, status = begins(options, headers, status)
    parent_id = optional_id(headers.get("parent_id"))
    return Submitted(
        key=key,
        task_id=task_id,
        engine=engine,
        delivery=delivery,
        queue=queue,
        status=status,
        priority=int(publish_options.get("priority") or 0),
        run_at=run_at,
        expires_at=instant(headers.get("expires")),
        singleton_key=options.singleton_key,
        max_attempts=None if max_retries is None else max_retries + 1,
        user_id=options.user_id,
        metadata={
            **readable_arguments(task, body, headers),
            **options.metadata_of(headers, task),
        },
        root_id=key.job_id if root_id == task_id else optional_id(root_id),
        parent_id=parent_id if parent_id != key.job_id else None,  # else it sends itself again
        group_id=headers.get("group"),
        **place_of(body, headers),
        **more,
    )
