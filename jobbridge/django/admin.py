"""Pages of Django's admin: jobs and schedules, as they are in the tables; what is done to them goes through the app.

Who has the permission `view_job` sees them, who has `change_job` cancels and retries; likewise for schedules. A list
counts no further than `MOST` rows, and follows an index whatever it is filtered by.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

from django.contrib import admin, messages
from django.core.paginator import Paginator
from django.utils.functional import cached_property
from django.utils.translation import gettext_lazy

from jobbridge.core.masking.values import masked, without_passwords
from jobbridge.django.models import Job, Schedule
from jobbridge.errors import JobBridgeError
from jobbridge.runners.apps import current_app

#: So many rows a list goes back; older ones are found by their id, or in the dashboard.
MOST = 5000


class BoundedPaginator(Paginator):
    """Counts no further than `MOST`: counting a million rows takes a second, for each page."""

    @cached_property
    def count(self) -> int:
        return int(self.object_list.order_by()[:MOST].count())


class _Outcome(admin.SimpleListFilter):
    """What is rare has an index of its own."""

    title = gettext_lazy("outcome")
    parameter_name = "outcome"

    def lookups(self, *_: Any) -> list[tuple[str, str]]:
        return [(name, name) for name in ("open", "failed", "cancelled", "expired", "skipped")]

    def queryset(self, _: Any, queryset: Any) -> Any:
        if self.value() == "open":
            return queryset.filter(completed_at__isnull=True)
        return queryset.filter(unsuccessful=self.value()) if self.value() else queryset


class _ReadOnlyAdmin(admin.ModelAdmin):
    paginator = BoundedPaginator
    show_full_result_count = False
    list_per_page = 50

    def has_add_permission(self, *_: Any) -> bool:
        return False

    def has_delete_permission(self, *_: Any, **__: Any) -> bool:
        return False

    def has_change_permission(self, *_: Any, **__: Any) -> bool:
        return False

    def has_view_permission(self, request: Any, obj: Any = None) -> bool:
        return bool(super().has_view_permission(request, obj)) or self.has_operate_permission(request)

    def has_operate_permission(self, request: Any) -> bool:
        return bool(request.user.has_perm(f"{self.opts.app_label}.change_{self.opts.model_name}"))

    def _do(self, request: Any, rows: Any, done: str, act: Callable[[Any], object]) -> None:
        """Do it to each row by itself, and say what came of it."""
        number = 0
        for row in rows:
            try:
                if act(row) is False:
                    self.message_user(request, f"{row} had ended.", messages.WARNING)
                    continue
            except JobBridgeError as error:
                self.message_user(request, f"{row}: {error} {error.hint}", messages.ERROR)
                continue
            number += 1
            self.log_change(request, row, done)
        if number:
            self.message_user(request, f"{done}: {number}.", messages.SUCCESS)


@admin.register(Job)
class JobAdmin(_ReadOnlyAdmin):
    """Jobs, the newest first."""

    list_display = (
        "type",
        "status",
        "runner_type",
        "queue",
        "attempt",
        "created_at",
        "completed_at",
        "tenant",
    )
    list_filter = (_Outcome,)
    search_fields = ("job_id",)
    search_help_text = gettext_lazy("A job's id, or a tenant")
    actions = ("cancel", "retry")
    #: What handlers and callers wrote is shown without secrets; lists do without it.
    _written = ("metadata", "result", "error", "traceback", "progress_message")

    def get_queryset(self, request: Any) -> Any:
        return super().get_queryset(request).defer(*self._written)

    def get_fields(self, *_: Any) -> list[str]:
        names = [field.name for field in self.opts.get_fields()]
        return [f"shown_{name}" if name in self._written else name for name in names]

    def get_readonly_fields(self, *_: Any) -> list[str]:
        return self.get_fields()

    @admin.display(description=gettext_lazy("metadata"))
    def shown_metadata(self, job: Job) -> str:
        return _json(job.metadata)

    @admin.display(description=gettext_lazy("result"))
    def shown_result(self, job: Job) -> str:
        return _json(job.result)

    @admin.display(description=gettext_lazy("error"))
    def shown_error(self, job: Job) -> str:
        return without_passwords(job.error)

    @admin.display(description=gettext_lazy("traceback"))
    def shown_traceback(self, job: Job) -> str:
        return without_passwords(job.traceback)

    @admin.display(description=gettext_lazy("progress message"))
    def shown_progress_message(self, job: Job) -> str:
        return without_passwords(job.progress_message)

    def get_search_results(self, request: Any, queryset: Any, search_term: str) -> tuple[Any, bool]:
        term = search_term.strip()
        if not term:
            return queryset, False
        try:
            job_id = UUID(term)
        except ValueError:
            return queryset.filter(tenant=term), False
        found = queryset.filter(job_id=job_id)
        return (found if found.exists() else queryset.filter(tenant=term)), False

    @admin.action(description=gettext_lazy("Cancel selected jobs"), permissions=["operate"])
    def cancel(self, request: Any, queryset: Any) -> None:
        by, app = request.user.get_username(), current_app()
        self._do(
            request,
            queryset,
            "Cancelled",
            lambda job: app.cancel_job(
                job.job_id, str(job.tenant), cancelled_by=by, reason="in Django's admin"
            ),
        )

    @admin.action(description=gettext_lazy("Retry selected jobs"), permissions=["operate"])
    def retry(self, request: Any, queryset: Any) -> None:
        app = current_app()
        self._do(
            request, queryset, "Sent again", lambda job: bool(app.retry_job(job.job_id, str(job.tenant)))
        )


@admin.register(Schedule)
class ScheduleAdmin(_ReadOnlyAdmin):
    """Schedules by tenant and name."""

    list_display = (
        "name",
        "task",
        "spec",
        "zone",
        "engine",
        "paused",
        "next_fire_at",
        "last_fire_at",
        "tenant",
    )
    list_filter = ("paused", "engine")
    search_fields = ("name", "task")
    actions: Sequence[str] = ("pause", "resume", "run_now")

    def get_fields(self, *_: Any) -> list[str]:
        shown = {
            "args": "shown_args",
            "kwargs": "shown_kwargs",
            "options": "shown_options",
            "note": "shown_note",
        }
        return [shown.get(field.name, field.name) for field in self.opts.get_fields()]

    def get_readonly_fields(self, *_: Any) -> list[str]:
        return self.get_fields()

    @admin.display(description=gettext_lazy("args"))
    def shown_args(self, schedule: Schedule) -> str:
        return _json(schedule.args)

    @admin.display(description=gettext_lazy("kwargs"))
    def shown_kwargs(self, schedule: Schedule) -> str:
        return _json(schedule.kwargs)

    @admin.display(description=gettext_lazy("options"))
    def shown_options(self, schedule: Schedule) -> str:
        return _json(schedule.options)

    @admin.display(description=gettext_lazy("note"))
    def shown_note(self, schedule: Schedule) -> str:
        return without_passwords(schedule.note)

    def get_queryset(self, request: Any) -> Any:
        return super().get_queryset(request).filter(deleted_at__isnull=True)

    @admin.action(description=gettext_lazy("Pause selected schedules"), permissions=["operate"])
    def pause(self, request: Any, queryset: Any) -> None:
        note, schedules = f"by {request.user.get_username()}", current_app().schedules
        self._do(
            request,
            queryset,
            "Paused",
            lambda row: schedules.pause(row.schedule_id, str(row.tenant), note=note),
        )

    @admin.action(description=gettext_lazy("Resume selected schedules"), permissions=["operate"])
    def resume(self, request: Any, queryset: Any) -> None:
        schedules = current_app().schedules
        self._do(request, queryset, "Resumed", lambda row: schedules.resume(row.schedule_id, str(row.tenant)))

    @admin.action(description=gettext_lazy("Run selected schedules now"), permissions=["operate"])
    def run_now(self, request: Any, queryset: Any) -> None:
        schedules = current_app().schedules
        self._do(request, queryset, "Run", lambda row: schedules.run_now(row.schedule_id, str(row.tenant)))


def _json(value: Any) -> str:
    return "" if value is None else json.dumps(masked(value), indent=2, ensure_ascii=False, default=str)
