"""Django's tasks as jobs: each `@task` is a Celery task of the name of its function, on either engine.

What `enqueue()` sends is a job like any other: it joins the transaction that is open, has its row, and is run by
`celery worker` or `jobbridge temporal-worker`. Its result is read from the row.
"""

from __future__ import annotations

from collections.abc import Mapping
from traceback import format_exception
from typing import Any

import django
from celery import shared_task
from django.utils import timezone
from django.utils.module_loading import import_string

from jobbridge.core.keys import job_id_for
from jobbridge.core.status import JobStatus
from jobbridge.errors import UnsupportedOption
from jobbridge.runners.apps import current_app

if django.VERSION >= (6, 0):
    from django.tasks import base, exceptions, signals
    from django.tasks.backends.base import BaseTaskBackend
    from django.utils.json import normalize_json
else:
    from django_tasks import base, exceptions, signals
    from django_tasks.backends.base import BaseTaskBackend
    from django_tasks.utils import normalize_json

#: Where the row keeps what Django's result tells of how it was sent.
_SENT = "django_task"
#: Django's queue of that name is Celery's default one, which a worker serves that is told of none.
_DEFAULT_QUEUE = "default"
_Status = base.TaskResultStatus
_STATUSES = {
    JobStatus.PROCESSING: _Status.RUNNING,
    JobStatus.COMPLETED: _Status.SUCCESSFUL,
    JobStatus.FAILED: _Status.FAILED,
    JobStatus.CANCELLED: _Status.FAILED,
    JobStatus.EXPIRED: _Status.FAILED,
    JobStatus.SKIPPED: _Status.FAILED,
}  #: All others: READY.
_NEVER_RAN = {JobStatus.CANCELLED, JobStatus.EXPIRED, JobStatus.SKIPPED}


class JobBridgeBackend(BaseTaskBackend):
    """Sends Django's tasks as jobs.

    `OPTIONS` are those of `apply_async` for each of its tasks, such as `{"engine": "temporal"}`.
    """

    supports_defer = True
    supports_async_task = True
    supports_get_result = True
    supports_priority = True

    def validate_task(self, task: Any) -> None:
        super().validate_task(task)
        _declare(task.module_path)

    def enqueue(self, task: Any, args: Any, kwargs: Any) -> Any:
        """Send it; in an open transaction of Django's its commit sends it.

        Raises:
            InvalidTask: Django's own (`InvalidTaskError` of the package): it cannot be sent by this backend.
            TypeError: The arguments are no JSON.
            OperationalError: It cannot be sent: see docs/sending.md.
        """
        self.validate_task(task)
        args, kwargs = normalize_json(list(args)), normalize_json(dict(kwargs))
        sent = {
            "args": args,
            "kwargs": kwargs,
            "priority": task.priority,
            "queue_name": task.queue_name,
            "run_after": None if task.run_after is None else task.run_after.isoformat(),
        }
        options: dict[str, Any] = {"priority": priority_of(task.priority), **self.options}
        if task.queue_name != _DEFAULT_QUEUE:
            options.setdefault("queue", task.queue_name)
        if task.run_after is not None:
            run_after = task.run_after
            options["eta"] = run_after if timezone.is_aware(run_after) else timezone.make_aware(run_after)
        enqueued_at = timezone.now()
        sent_as = _celery_task(task.module_path).apply_async(
            args, kwargs, job_metadata={**self.options.get("job_metadata", {}), _SENT: sent}, **options
        )
        result = self._result(task, sent_as.id, sent, status=_Status.READY, enqueued_at=enqueued_at)
        signals.task_enqueued.send(type(self), task_result=result)
        return result

    def get_result(self, result_id: str) -> Any:
        """Read it from the job's row.

        Raises:
            TaskResultDoesNotExist: There is no job of that id, or it was not sent by Django's tasks.
        """
        try:
            row = current_app().jobs.find(job_id_for(str(result_id)))
        except UnsupportedOption:
            row = None
        sent = None if row is None else row.metadata.get(_SENT)
        if row is None or not isinstance(sent, Mapping):
            raise exceptions.TaskResultDoesNotExist(result_id)
        status = _STATUSES.get(row.status, _Status.READY)
        result = self._result(
            import_string(row.type),
            row.task_id,
            sent,
            status=status,
            enqueued_at=row.created_at,
            started_at=row.started_at,
            last_attempted_at=row.started_at,
            finished_at=row.completed_at,
            errors=[_error_of(row)] if status is _Status.FAILED else [],
            worker_ids=[row.worker or ""] * row.attempt,
        )
        if status is _Status.SUCCESSFUL:
            object.__setattr__(result, "_return_value", row.result)
        return result

    def _result(self, task: Any, task_id: str, sent: Mapping[str, Any], **told: Any) -> Any:
        changes = {"queue_name": sent.get("queue_name"), "priority": sent.get("priority")}
        return base.TaskResult(
            task=task.using(**changes, backend=self.alias),
            id=task_id,
            args=list(sent.get("args", ())),
            kwargs=dict(sent.get("kwargs", {})),
            backend=self.alias,
            **{
                "started_at": None, "finished_at": None, "last_attempted_at": None, "errors": [], "worker_ids": [],
                **told,
            },
        )  # fmt: skip


def priority_of(priority: int) -> int:
    """Give the job's priority, 0 to 9, for one of Django's, -100 to 100; higher first, and 0 is 4."""
    return (priority + 100) * 9 // 200


def _declare(path: str) -> None:
    """Have all apps know the Celery task that runs this function, once."""
    if path in _declared:
        return

    def run(self: Any, *args: Any, **kwargs: Any) -> Any:
        return _run(self, *args, **kwargs)

    _declared[path] = shared_task(bind=True, name=path)(run)


#: Path of the function → its Celery task.
_declared: dict[str, Any] = {}


def _celery_task(path: str) -> Any:
    app = current_app()
    app.finalize(auto=True)
    return app.tasks[path]


def _run(celery_task: Any, *args: Any, **kwargs: Any) -> Any:
    task = import_string(celery_task.name)
    backend = task.get_backend()
    started_at, request = timezone.now(), celery_task.request
    try:
        result = backend.get_result(request.id)
    except exceptions.TaskResultDoesNotExist:  # sent by Celery's own means, or without a row
        result = backend._result(
            task, request.id, {"args": args, "kwargs": kwargs}, status=_Status.RUNNING, enqueued_at=None
        )
    _set(result, status=_Status.RUNNING, started_at=started_at, last_attempted_at=started_at)
    if not result.worker_ids:
        result.worker_ids.append(str(request.hostname or ""))
    signals.task_started.send(type(backend), task_result=result)
    context = (base.TaskContext(task_result=result),) if task.takes_context else ()
    try:
        value = normalize_json(task.call(*context, *args, **kwargs))
    except Exception as error:
        path, trace = _path_of(type(error)), "".join(format_exception(error))
        result.errors.append(base.TaskError(exception_class_path=path, traceback=trace))
        _set(result, status=_Status.FAILED, finished_at=timezone.now())
        signals.task_finished.send(type(backend), task_result=result)
        raise
    _set(result, status=_Status.SUCCESSFUL, finished_at=timezone.now(), _return_value=value)
    signals.task_finished.send(type(backend), task_result=result)
    return value


def _set(result: Any, **values: Any) -> None:
    """Change a result, which is frozen to its users."""
    for name, value in values.items():
        object.__setattr__(result, name, value)


def _error_of(row: Any) -> Any:
    error = None if row.status in _NEVER_RAN else current_app().AsyncResult(row.task_id).result
    path = (
        "celery.exceptions.TaskRevokedError"
        if not isinstance(error, BaseException)
        else _path_of(type(error))
    )
    return base.TaskError(exception_class_path=path, traceback=row.traceback or row.error or "")


def _path_of(kind: type[BaseException]) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
