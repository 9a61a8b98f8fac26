"""A job that is replaced by a canvas: how it ends, should the canvas not come to the task that has the job's id.

Such a job waits, without a message, for a link of the canvas to send that task. A link that fails tells those after it,
as Celery does; one that is cancelled, expires or is dropped tells nobody. So the job waits as the body of a chord does
(`chords`): in a row that the end of such a link breaks, in the statement that writes that end.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from kombu import serialization
from kombu.utils.encoding import str_to_bytes

from jobbridge.core.chords import REPLACES, end_of, mark_of_replaced
from jobbridge.core.keys import job_id_for
from jobbridge.store.jobs import chords as rows

if TYPE_CHECKING:
    from jobbridge.app.application import Celery
    from jobbridge.postgres.caller_connection import DriverConnection


def await_canvas(app: Celery, connection: DriverConnection, task_id: str, canvas: Any) -> None:
    """Have the links of a canvas say so if it goes on no more before the task with this id.

    Args:
        app: Whose job.
        connection: In the transaction in which the canvas is sent.
        task_id: The job's.
        canvas: With its ids; it is changed.
    """
    tasks: Sequence[Any] = canvas.tasks if canvas.subtask_type == "chain" else [canvas]
    place = next((number for number, task in enumerate(tasks) if end_of(task) == task_id), None)
    if place is None:
        return
    own, following = tasks[: place + 1], tasks[place + 1 :]
    for task in own:
        _mark(task, task_id)
    end = _end_task(tasks[place]).clone()
    if following:
        end.options["chain"] = [task.clone() for task in reversed(following)]
    content_type, encoding, data = serialization.dumps(dict(end), serializer=app.conf.task_serializer)
    rows.open_chord(
        connection,
        mark_of_replaced(job_id_for(task_id)),
        body=str_to_bytes(data),
        body_type=f"{content_type} {encoding}",
        header=None,
        lifetime=None,  # a chain may take as long as it likes
    )


def _mark(task: Any, task_id: str) -> None:
    headers = task.options.get("headers") or {}
    task.options["headers"] = {**headers, REPLACES: task_id}
    for member in _members(task):
        _mark(member, task_id)


def _members(task: Any) -> Iterable[Any]:
    tasks = task.kwargs.get("tasks") or [] if task.subtask_type in ("chain", "group") else []
    if task.subtask_type == "chord":
        header = task.kwargs.get("header") or []
        tasks = [*(header if isinstance(header, list | tuple) else [header]), task.kwargs["body"]]
    return tasks


def _end_task(task: Any) -> Any:
    if task.subtask_type == "chord":
        return _end_task(task.kwargs["body"])
    return _end_task(task.kwargs["tasks"][-1]) if task.subtask_type == "chain" else task
