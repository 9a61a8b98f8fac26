"""Groups are sent in bulk: also the headers of chords, `chunks`, and a group that a task sends. And ids have times.

`group.apply_async` sends its members one by one as it goes through them, and a generator is not run ahead of what is
sent (celery 5.7, canvas.py, `_apply_tasks`). It offers no place where a group begins and ends but that method, so it is
wrapped, for apps of ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import wraps
from typing import Any

from celery import canvas
from celery.app import base

from jobbridge.app.publish.message.ids import new_task_id

_MARK = "jobbridge_sends_in_bulk"


def send_groups_in_bulk() -> None:
    """Have the members of a group collected into portions. Calling it again changes nothing."""
    group: Any = canvas.group
    original = group._apply_tasks
    if hasattr(original, _MARK):
        return

    @wraps(original)
    def apply_tasks(
        self: Any, tasks: Any, producer: Any = None, app: Any = None, *args: Any, **options: Any
    ) -> Any:
        ours = app or self.app
        sent = original(self, tasks, producer, app, *args, **options)
        return _in_bulk(ours, sent) if getattr(ours, "is_jobbridge", False) else sent

    setattr(apply_tasks, _MARK, True)
    group._apply_tasks = apply_tasks


def order_ids_by_time() -> None:
    """Have Celery make ids as ours where it makes them itself. Calling it again changes nothing.

    It takes them from a function that it imports by name, and offers no place for another one (celery 5.7, canvas.py,
    `freeze`; app/base.py, `send_task`). Plain apps in the same process get such ids, too; they are as unique.
    """
    for module in (canvas, base):
        vars(module)["uuid"] = new_task_id


def _in_bulk(app: Any, sent: Iterator[Any]) -> Iterator[Any]:
    with app.bulk(is_asked_for=False):
        yield from sent
