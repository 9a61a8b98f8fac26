"""What somebody does in an installation that has no jobs yet: a worker, and a command that sends the first job."""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, metadata
from shlex import quote
from typing import TYPE_CHECKING, Any

from jobbridge.core.handlers import handler_of

if TYPE_CHECKING:
    from jobbridge.app.application import Celery
    from jobbridge.dashboard.access.request_context import RequestContext
    from jobbridge.store.workers.workers import WorkerRow

_WORKERS_NAMED = 3
#: What workers know beside the tasks of an application.
_OWN = ("jobbridge.", "celery.")


@dataclass(frozen=True, kw_only=True, slots=True)
class FirstJob:
    """The steps to it.

    Attributes:
        workers: The names of some that run; empty: none does.
        is_more: There are more of them.
        command: Sends a job; to a handler that workers know, if they know any.
        needs_values: It has `…` where values belong.
        docs: The address of the documentation, if this release has one.
    """

    workers: Sequence[str]
    is_more: bool
    command: str
    needs_values: bool
    docs: str | None


def first_job(context: RequestContext) -> FirstJob:
    """Give the steps, as far as they are not done."""
    workers = context.app.workers.alive()
    name, data = _example(context.app, workers)
    text = json.dumps(data, ensure_ascii=False) if name else "{…}"
    return FirstJob(
        workers=[row.name for row in workers[:_WORKERS_NAMED]],
        is_more=len(workers) > _WORKERS_NAMED,
        command=f"jobbridge enqueue {quote(name) if name else 'NAME'} --data {quote(text)}",
        needs_values="…" in text,
        docs=_address_of_docs(),
    )


def _example(app: Celery, workers: Sequence[WorkerRow]) -> tuple[str | None, dict[str, str]]:
    """Give a name that workers know, and its data: one that needs least, so that the command runs as it is copied."""
    known = sorted({name for row in workers for name in row.tasks if not name.startswith(_OWN)})
    choices = [(name, _required(app, name)) for name in known]
    ready = [(len(needs), name, needs) for name, needs in choices if needs is not None]
    if not ready:
        return (known[0], {}) if known else (None, {})
    _, name, needs = min(ready)
    return name, dict.fromkeys(needs, "…")


def _required(app: Celery, name: str) -> list[str] | None:
    """Name what a task must be given; None: it is not known here, or cannot be sent by a name and data alone."""
    task: Any = app.tasks.get(name)
    if task is None:
        return None
    spec = handler_of(task)
    if spec is None:
        return _arguments(task.run)
    if spec.tenant_required:
        return None
    fields = getattr(spec.data_model, "model_fields", {})
    return [field.alias or key for key, field in fields.items() if field.is_required()]


def _arguments(run: Any) -> list[str] | None:
    try:
        parameters = inspect.signature(run).parameters.values()
    except (TypeError, ValueError):
        return None
    required = [each for each in parameters if each.default is each.empty and each.kind not in _VARIABLE]
    if any(each.kind is each.POSITIONAL_ONLY for each in required):
        return None
    return [each.name for each in required]


_VARIABLE = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}


def _address_of_docs() -> str | None:
    """Give what the installed package says of itself."""
    try:
        links = metadata("jobbridge").get_all("Project-URL") or []
    except PackageNotFoundError:
        return None
    known = {
        label.strip().lower(): address.strip()
        for label, _, address in (each.partition(",") for each in links)
    }
    address = known.get("documentation", "")
    return address if address.startswith(("https://", "http://")) else None
