"""What of an application's own workflows and activities the Temporal worker serves beside its jobs.

    app.conf.temporal_workers = [
        UserQueue(
            "tenant-workflows",
            workflows=["myapp.workflows:TenantWorkflow"],
            activities=["myapp.activities:create_tenant"],
            max_concurrent_activities=5,
        ),
    ]

Only declarations: they can be made where temporalio is not installed. What strings name is imported when the Temporal
worker starts, before it takes anything.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from jobbridge.errors import ConfigurationError

#: `package.module:name`, `package.module:object.method`.
_REFERENCE = re.compile(r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$")
_COUNTS = ("max_concurrent_activities", "max_concurrent_workflow_tasks", "activity_threads")
_RATES = ("max_activities_per_second", "max_task_queue_activities_per_second")


@dataclass(frozen=True)
class UserQueue:
    """A task queue of Temporal, what is served there, and how much of it at a time.

    Args:
        task_queue: Its name in Temporal; not one of the worker's own, which carry jobs.
        workflows: Classes with `@workflow.defn`, or `"package.module:Class"`.
        activities: Functions and bound methods with `@activity.defn`, or `"package.module:function"`. A name may stand
            for a list of them.
        max_concurrent_activities: Per worker process.
        max_concurrent_workflow_tasks: Per worker process; None: as Temporal's SDK chooses.
        max_activities_per_second: Started by this worker; None: no limit.
        max_task_queue_activities_per_second: Started by all workers of the queue; None: no limit.
        activity_threads: For activities that are not `async`; None: as many as activities.
        passthrough_modules: What the workflows' sandbox takes as it is, beside Temporal's own list.
        shutdown_timeout: How long running activities may take when the worker stops; then they are cancelled.

    Raises:
        ConfigurationError: Something of it cannot be meant.
    """

    task_queue: str
    workflows: Sequence[type[Any] | str] = ()
    activities: Sequence[Callable[..., Any] | str] = ()
    max_concurrent_activities: int = field(default=100, kw_only=True)
    max_concurrent_workflow_tasks: int | None = field(default=None, kw_only=True)
    max_activities_per_second: float | None = field(default=None, kw_only=True)
    max_task_queue_activities_per_second: float | None = field(default=None, kw_only=True)
    activity_threads: int | None = field(default=None, kw_only=True)
    passthrough_modules: Sequence[str] = field(default=(), kw_only=True)
    shutdown_timeout: timedelta = field(default=timedelta(seconds=30), kw_only=True)

    def __post_init__(self) -> None:
        if not isinstance(self.task_queue, str) or not self.task_queue.strip():
            raise ConfigurationError(
                f"A task queue of temporal_workers has the name {self.task_queue!r}.", hint="Give it a name."
            )
        self._check_served("workflows", self.workflows)
        self._check_served("activities", self.activities)
        if not self.workflows and not self.activities:
            raise self._wrong("serves nothing.", hint="Name workflows or activities for it, or remove it.")
        for name in _COUNTS:
            self._check_limit(name, is_whole=True)
        for name in _RATES:
            self._check_limit(name, is_whole=False)
        if not isinstance(self.shutdown_timeout, timedelta) or self.shutdown_timeout < timedelta():
            raise self._wrong(
                f"has shutdown_timeout={self.shutdown_timeout!r}.", hint="Give a timedelta of zero or more."
            )

    def _check_served(self, name: str, served: object) -> None:
        if isinstance(served, str) or not isinstance(served, Sequence):
            raise self._wrong(f"has {name}={served!r}.", hint=f"Give a list: {name}=[…].")
        for each in served:
            if isinstance(each, str) and not _REFERENCE.match(each):
                raise self._wrong(
                    f"names {each!r} among its {name}.", hint="Write it as 'package.module:name'."
                )
            if not isinstance(each, str) and not callable(each):
                raise self._wrong(
                    f"has {each!r} among its {name}.",
                    hint="Give the object itself, or 'package.module:name'.",
                )

    def _check_limit(self, name: str, *, is_whole: bool) -> None:
        value = getattr(self, name)
        if value is None and name != "max_concurrent_activities":
            return
        fits = isinstance(value, int) or (isinstance(value, float) and not is_whole)
        if not fits or isinstance(value, bool) or not value > 0:
            kind = "a whole number of at least 1" if is_whole else "a number above 0"
            raise self._wrong(f"has {name}={value!r}.", hint=f"Give {kind}.")

    def _wrong(self, what: str, *, hint: str) -> ConfigurationError:
        return ConfigurationError(f"The task queue {self.task_queue!r} {what}", hint=hint)


def user_queues(value: object, *, own: Sequence[str] = ()) -> list[UserQueue]:
    """Read the setting `temporal_workers`.

    Args:
        value: As configured; None: nothing.
        own: The task queues on which this worker takes jobs.

    Raises:
        ConfigurationError: It is no list of `UserQueue`, names a queue twice, or one that carries jobs.
    """
    if value is None:
        return []
    if not isinstance(value, Sequence) or not all(isinstance(each, UserQueue) for each in value):
        raise ConfigurationError(
            f"The setting temporal_workers is {value!r}.", hint="Give a list: [UserQueue('name', …), …]."
        )
    queues: list[UserQueue] = list(value)
    names = [queue.task_queue for queue in queues]
    for name in names:
        if names.count(name) > 1:
            raise ConfigurationError(
                f"The task queue {name!r} is in temporal_workers more than once.",
                hint="Put its workflows and activities into one UserQueue.",
            )
        if name in own:
            raise ConfigurationError(
                f"The task queue {name!r} carries this worker's jobs, and cannot serve workflows of your own.",
                hint="Choose another name: Temporal gives tasks of one queue to any worker that polls it.",
            )
    return queues
