"""Our tables as Django's models, to be queried: `Job.objects.filter(type="shop.tasks.bill", status="failed")`.

Rows are written by what happens to jobs, so nothing is saved or deleted here: see `jobbridge.recording`.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any, NoReturn

from django.db import models
from django.utils.translation import gettext_lazy

from jobbridge.core.status import JobStatus
from jobbridge.errors import ConfigurationError, UnsupportedOption
from jobbridge.postgres.schema.names import PUBLIC
from jobbridge.postgres.target import Target
from jobbridge.settings import load_settings


def _table(name: str) -> str:
    """Name a table as Django quotes it; what is wrong with the settings is said where the database is used."""
    schema = PUBLIC
    with suppress(ConfigurationError):
        schema = Target.of(load_settings().database_url or "postgresql://").schema
    return name if schema == PUBLIC else f'"{schema}"."{name}"'


class _Json(models.JSONField):
    """`jsonb`, which Django reads by itself, or `json`, which the driver has read (psycopg 3 and 2)."""

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        return super().from_db_value(value, expression, connection) if isinstance(value, str) else value


class _ReadOnly(models.Model):
    class Meta:
        abstract = True

    def save(self, *_: Any, **__: Any) -> NoReturn:
        raise _refused(self)

    def delete(self, *_: Any, **__: Any) -> NoReturn:
        raise _refused(self)


def _refused(row: models.Model) -> UnsupportedOption:
    return UnsupportedOption(
        f"{type(row).__name__} {row.pk} cannot be written by Django.",
        hint="Use jobbridge.get_job_runner(), or app.schedules.",
    )


class Job(_ReadOnly):
    """One requested execution, whatever the number of attempts."""

    job_id = models.UUIDField(primary_key=True)
    task_id = models.TextField()
    tenant = models.TextField()
    type = models.TextField(verbose_name=gettext_lazy("task"))
    status = models.TextField(choices=[(status.value, status.value) for status in JobStatus])
    runner_type = models.TextField(verbose_name=gettext_lazy("engine"))
    queue = models.TextField(null=True)
    priority = models.SmallIntegerField()
    attempt = models.IntegerField()
    max_attempts = models.IntegerField(null=True)
    worker = models.TextField(null=True)
    progress = models.FloatField(null=True)
    progress_message = models.TextField(null=True)
    metadata = _Json()
    result = _Json(null=True)
    error = models.TextField(null=True)
    traceback = models.TextField(null=True)
    cancelled_by = models.TextField(null=True)
    cancel_reason = models.TextField(null=True)
    user_id = models.UUIDField(null=True)
    root_id = models.UUIDField(null=True)
    parent_id = models.UUIDField(null=True)
    singleton_key = models.TextField(null=True)
    run_at = models.DateTimeField(null=True)
    expires_at = models.DateTimeField(null=True)
    created_at = models.DateTimeField()
    started_at = models.DateTimeField(null=True)
    completed_at = models.DateTimeField(null=True)
    unsuccessful = models.TextField(null=True, help_text=gettext_lazy("Its status, if it did not end well."))

    class Meta:
        managed = False
        db_table = _table("jobs")
        ordering = ("-created_at", "-job_id")  # an index has this order
        default_permissions = ("view", "change")

    def __str__(self) -> str:
        return f"{self.type} {self.job_id}"


class Schedule(_ReadOnly):
    """A recurring declaration; each fire makes one job."""

    schedule_id = models.UUIDField(primary_key=True)
    tenant = models.TextField()
    name = models.TextField()
    task = models.TextField()
    args = _Json()
    kwargs = _Json()
    options = _Json()
    kind = models.TextField()
    spec = models.TextField(verbose_name=gettext_lazy("when"))
    zone = models.TextField()
    overlap = models.TextField()
    engine = models.TextField()
    queue = models.TextField(null=True)
    priority = models.SmallIntegerField(null=True)
    declared_by = models.TextField(null=True)
    paused = models.BooleanField()
    note = models.TextField(null=True)
    next_fire_at = models.DateTimeField(null=True)
    last_fire_at = models.DateTimeField(null=True)
    last_job_id = models.UUIDField(null=True)
    created_at = models.DateTimeField()
    deleted_at = models.DateTimeField(null=True)

    class Meta:
        managed = False
        db_table = _table("job_schedules")
        ordering = ("tenant", "name")
        default_permissions = ("view", "change")

    def __str__(self) -> str:
        return str(self.name)
