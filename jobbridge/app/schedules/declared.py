"""The schedules that code declares, brought into the table: `beat_schedule`, and `@job(schedule=…)`.

A declared schedule is changed when its declaration changed, and deleted when it is gone. Only those that the same app
declared are looked at: what people and programs made is theirs. Whatever goes wrong on the way here (a module
cannot be imported, an entry cannot be honoured) is raised before anything is deleted.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, LiteralString

from jobbridge.app.options import engine_named, user_id_of
from jobbridge.app.periodic import spec_of
from jobbridge.core.keys import SYSTEM_TENANT, Engine, TenantId
from jobbridge.core.schedules.definition import Recurrence, ScheduleDefinition, overlap_named
from jobbridge.core.schedules.policies import Overlap
from jobbridge.core.schedules.specs import parse_spec
from jobbridge.errors import UnsupportedOption
from jobbridge.postgres import locks
from jobbridge.store.schedules.repository import SaveOutcome

if TYPE_CHECKING:
    from jobbridge.app.application import Celery

logger = logging.getLogger(__name__)

#: Celery's beat sends whether the last one has ended or not, and makes up for little.
_CELERYS = Recurrence("1 hour", overlap=Overlap.ALLOW, catchup=timedelta(hours=1))

#: Two that bring in their declarations at once take turns.
_TAKE_TURNS: LiteralString = f"SELECT pg_advisory_xact_lock({locks.DECLARED_SCHEDULES})"


@dataclass(frozen=True, kw_only=True, slots=True)
class Synced:
    """What came of bringing the declarations into the table, by name."""

    created: list[str] = field(default_factory=list)
    updated: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    not_ours: list[str] = field(default_factory=list)


def sync_declared(app: Celery, entries: Sequence[Any] | None = None) -> Synced:
    """Make the app's declared schedules what its code says.

    Args:
        app: Whose code; its modules are imported first.
        entries: Celery's entries; by default those of `beat_schedule`, where `@job(schedule=…)` are too.

    Raises:
        UnsupportedOption: A declaration cannot be honoured; nothing was changed.
    """
    app.loader.import_default_modules()
    app.finalize(auto=True)
    if entries is None:
        entries = _entries(app)
    declared_by = app.main or ""
    definitions = sorted((declared(app, entry) for entry in entries), key=lambda one: one.name)
    synced = Synced()
    with app.database.transaction() as connection:
        connection.execute(_TAKE_TURNS)
        for definition in definitions:
            outcome = app.schedules.store.save(definition, connection).outcome
            _note(synced, outcome, definition.name)
        # An app without a name cannot tell its schedules from those of another one without.
        if declared_by:
            kept = {definition.schedule_id for definition in definitions}
            for row in app.schedules.store.list(declared_by=declared_by, limit=None, connection=connection):
                if row.schedule_id not in kept:
                    app.schedules.store.delete(row.tenant, row.schedule_id, connection)
                    synced.deleted.append(row.name)
    logger.info("schedules.declared", extra={"schedules": len(definitions), "deleted": synced.deleted})
    return synced


def declared(app: Celery, entry: Any) -> ScheduleDefinition:
    """Give the definition that one of Celery's entries declares.

    Raises:
        UnsupportedOption: It cannot be honoured.
    """
    task = app.tasks.get(entry.task)
    recurrence, spec = _recurrence(task, entry)
    options = dict(entry.options)
    engine = options.pop("engine", None) or getattr(task, "engine", None)
    user_id = options.pop("user_id", None)
    definition = ScheduleDefinition(
        name=entry.name,
        task=entry.task,
        spec=spec,
        engine=app.default_engine if engine is None else engine_named(engine),
        tenant=TenantId(str(options.pop("tenant", None) or SYSTEM_TENANT)),
        queue=options.pop("queue", None),
        priority=options.pop("priority", None),
        user_id=None if user_id is None else user_id_of(user_id),
        args=tuple(entry.args or ()),
        kwargs=dict(entry.kwargs or {}),
        options=options,
        zone=recurrence.zone or app_zone(app),
        overlap=overlap_named(recurrence.overlap),
        catchup=recurrence.catchup,
        jitter=recurrence.jitter,
        declared_by=app.main or "",
    )
    check_sendable(definition)
    return definition


def check_sendable(definition: ScheduleDefinition) -> None:
    """Refuse what a row cannot hold.

    Raises:
        UnsupportedOption: Arguments or options are no JSON.
    """
    parts = {"args": definition.args, "kwargs": definition.kwargs, "options": definition.options}
    parts["queue"] = definition.queue or ""
    for part, value in parts.items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise UnsupportedOption(
                f"The {part} of the schedule {definition.name!r} cannot be stored: {error}.",
                hint="Pass what JSON can hold, and make the rest in the task.",
            ) from None
        if isinstance(value, str) and part != "queue":
            raise UnsupportedOption(
                f"The {part} of the schedule {definition.name!r} are text.", hint="Pass a list."
            )


def app_zone(app: Celery) -> str:
    """Name the time zone that the app is configured with."""
    return str(getattr(app.timezone, "key", None) or app.conf.timezone or "UTC")


def _recurrence(task: Any, entry: Any) -> tuple[Recurrence, Any]:
    handler = getattr(task, "spec", None)
    if handler is None or handler.schedule is None or entry.name != handler.name:
        return _CELERYS, spec_of(entry.name, entry.schedule)
    own = handler.schedule if isinstance(handler.schedule, Recurrence) else Recurrence(handler.schedule)
    return own, parse_spec(own.when)


def _entries(app: Celery) -> list[Any]:
    from celery.beat import Scheduler

    plain: Any = Scheduler(app, lazy=True)
    plain.merge_inplace(app.conf.beat_schedule)
    return list(plain.data.values())


def _note(synced: Synced, outcome: SaveOutcome, name: str) -> None:
    if outcome is SaveOutcome.CREATED:
        synced.created.append(name)
    elif outcome is SaveOutcome.UPDATED:
        synced.updated.append(name)
    elif outcome is SaveOutcome.NOT_OURS:
        synced.not_ours.append(name)
        logger.warning("schedule.name_taken", extra={"schedule": name})


def engine_for(app: Celery, task: Any, engine: Engine | str | None, default: Engine | None) -> Engine:
    """Choose the engine of a schedule as that of a message is chosen."""
    if engine is not None:
        return engine_named(engine)
    own = getattr(task, "engine", None)
    if own:
        return Engine.parse(str(own))
    return default or app.default_engine
