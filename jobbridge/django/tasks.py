"""The backend for Django's own tasks: `TASKS = {"default": {"BACKEND": "jobbridge.django.tasks.JobBridgeBackend"}}`.

It is loaded when it is asked for. Celery imports a module `tasks` of each application, also where Django's tasks are
not there: they are in Django from 6.0 on, and for former ones in the package `django-tasks`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jobbridge.django.task_backend import JobBridgeBackend as JobBridgeBackend

if not TYPE_CHECKING:  # to a type checker it would say that there is every name

    def __getattr__(name: str) -> Any:
        if name != "JobBridgeBackend":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from jobbridge.django.task_backend import JobBridgeBackend

        return JobBridgeBackend
