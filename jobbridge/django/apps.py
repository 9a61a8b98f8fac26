"""The Django application `jobbridge.django`."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.db.models.signals import pre_migrate

from jobbridge import django_settings


class JobBridgeConfig(AppConfig):
    """Finds the project's Celery app, and has `manage.py migrate` make our tables."""

    name = "jobbridge.django"
    label = "jobbridge"
    verbose_name = "JobBridge"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        django_settings.remember()
        pre_migrate.connect(_migrate, sender=self, dispatch_uid="jobbridge.migrate")
        if (module := project_app()) is not None:
            import_module(module)


def project_app() -> str | None:
    """Give the module with the project's Celery app: `JOBBRIDGE["APP"]`, else `celery` beside the settings, if any."""
    if (told := django_settings.app_module()) is not None:
        return told.partition(":")[0]
    named = getattr(settings, "SETTINGS_MODULE", None) or getattr(settings, "ROOT_URLCONF", None) or ""
    package = str(named).partition(".")[0]
    module = f"{package}.celery"
    return module if package and find_spec(package) and find_spec(module) else None


def _migrate(using: str, verbosity: int = 1, plan: Any = None, **_: Any) -> None:
    """Make our tables, or bring them up to this release, before Django migrates: its data migrations may send tasks."""
    if plan is None or using != django_settings.alias():  # it flushes, or migrates another database
        return
    from jobbridge.django.migrating import migrate

    migrate(using, verbosity=verbosity)
