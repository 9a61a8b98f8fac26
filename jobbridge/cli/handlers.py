"""`jobbridge handlers list`."""

from __future__ import annotations

from typing import Any

import click

from jobbridge.cli.common import (
    app_option,
    app_option_of_group,
    json_option,
    load_app,
    tell_table,
    write_json,
)
from jobbridge.core.handlers import handler_of
from jobbridge.core.keys import Engine


@click.group("handlers")
@app_option_of_group
def command() -> None:
    """What this app can run."""


@command.command("list")
@app_option
@json_option
def list_handlers(app_name: str | None, as_json: bool) -> None:
    """List the handlers and tasks of the app, with their timeouts, retries and schedules."""
    from jobbridge.runners.handlers import register_all_job_handlers

    app = load_app(app_name)
    register_all_job_handlers(app)
    rows = [
        _described(name, task) for name, task in sorted(app.tasks.items()) if not name.startswith("celery.")
    ]
    if as_json:
        write_json(rows)
        return
    shown = [
        (
            row["name"],
            row["queue"] or "",
            "" if row["timeout_seconds"] is None else f"{row['timeout_seconds']:g} s",
            "" if row["max_attempts"] is None else str(row["max_attempts"]),
            row["schedule"] or "",
            "required" if row["tenant_required"] else "",
            row["description"],
        )
        for row in rows
    ]
    columns = ("handler", "queue", "timeout", "attempts", "schedule", "tenant", "does")
    tell_table(shown, *columns, empty="The app has no handlers.")


def _described(name: str, task: Any) -> dict[str, Any]:
    spec, engine = handler_of(task), Engine.named_by(task)
    limit = task.soft_time_limit or task.time_limit
    retries = task.max_retries
    return {
        "name": name,
        "kind": "task" if spec is None else "handler",
        "description": ((task.__doc__ or "").strip().splitlines() or [""])[0],
        "module": task.__module__ if spec is None else spec.function.__module__,
        "engine": None if engine is None else engine.value,
        "queue": getattr(task, "queue", None) if spec is None else spec.queue,
        "timeout_seconds": limit,
        "max_attempts": None if retries is None else retries + 1,
        "schedule": None if spec is None or spec.schedule is None else str(spec.schedule),
        "tenant_required": spec is not None and spec.tenant_required,
        "enterprise_only": spec is not None and spec.enterprise_only,
    }
