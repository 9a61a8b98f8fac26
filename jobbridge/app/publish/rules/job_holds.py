"""One job's rules, within the transaction that makes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jobbridge.app.publish.rules.declared import rules_of
from jobbridge.broker import publishing_held
from jobbridge.core.keys import JobKey
from jobbridge.store.rules import holds as store

if TYPE_CHECKING:
    from jobbridge.app.application import Celery
    from jobbridge.app.options import JobOptions
    from jobbridge.postgres.caller_connection import DriverConnection
    from jobbridge.store.rules.holds import Hold


@dataclass(slots=True)
class JobHolds:
    """What holds one job: `write` with its row; `publish` its message, if the broker is to have it.

    Attributes:
        job: Which.
        task_id: Celery's.
        holds: Its rules; none: nothing holds it.
        priority: 0 to 9.
        is_later: It is due later, and stands in line from then on; known when they are written.
    """

    job: JobKey | None = None
    task_id: str = ""
    holds: Sequence[Hold] = ()
    priority: int = 0
    is_later: bool = False

    def __bool__(self) -> bool:
        return bool(self.holds)

    def write(self, connection: DriverConnection, *, is_new: bool) -> None:
        """Put the job under its rules; they decide when the transaction commits."""
        assert self.job is not None  # there are holds
        self.is_later = store.hold(
            connection, self.job, self.task_id, self.holds, priority=self.priority, is_new=is_new
        )

    def publish(self, connection: DriverConnection, publish: Callable[[], Any]) -> Any:
        """Publish its message so that no worker sees it before the rules let it go."""
        if not self.holds:
            return publish()
        if self.is_later:
            result = publish()
            store.mark_message(connection, self.task_id)
            return result
        with publishing_held(None, is_woken=True):
            return publish()


def holds_of(
    app: Celery,
    task: Any,
    name: str,
    options: JobOptions,
    key: JobKey,
    task_id: str,
    queue: str,
    body: Any,
    publish_options: Mapping[str, Any],
) -> JobHolds:
    """Give what is to hold a new job.

    Args:
        app: Whose job.
        task: The task if it is known here.
        name: Of the task.
        options: The caller's.
        key: The job.
        task_id: Celery's.
        queue: Where it is sent to.
        body: Arguments, and what follows; not yet serialized.
        publish_options: Of the producer.

    Raises:
        UnsupportedOption: A rule's key cannot be made of the arguments.
    """
    holds = rules_of(app, task, name, options, key.tenant, queue, body)
    if not holds:
        return JobHolds()
    return JobHolds(key, task_id, holds, priority=int(publish_options.get("priority") or 0))
