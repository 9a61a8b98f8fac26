"""The schedules that code declares, brought into the table: `beat_schedule`, and `@job(schedule=…)`.

A declared schedule is changed when its declaration changed, and deleted when it is gone; neither by an older release
that starts again while a newer one declares it (`releases`), and one that comes back is paused as it was. Only those
that the same app declared are looked at: what people and programs made is theirs. A module that cannot be imported is
raised before anything is changed. An entry that cannot be honoured is named and left out, and the others are as their
code says; what was declared under its name before stays as it was.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, LiteralString
from uuid import UUID

from kombu.exceptions import KombuError
from kombu.utils import json as kombu_json

from jobbridge.app.errors import TooLarge
from jobbridge.app.options import engine_named, user_id_of
from jobbridge.app.periodic import spec_of
from jobbridge.app.schedules.rehearsal import rehearse
from jobbridge.app.schedules.releases import declared_later
from jobbridge.core.handlers import handler_of
from jobbridge.core.keys import SYSTEM_TENANT, Engine
from jobbridge.core.schedules.definition import Recurrence, ScheduleDefinition, overlap_named
from jobbridge.core.schedules.policies import Overlap
from jobbridge.core.schedules.specs import parse_spec
from jobbridge.core.tenant_names import tenant_named
from jobbridge.errors import JobBridgeError, UnsupportedOption
from jobbridge.postgres import locks
from jobbridge.store.schedules.repository import SaveOutcome, database_clock

if TYPE_CHECKING:
    from jobbridge.app.application import Celery

logger = logging.getLogger(__name__)

#: Celery's beat sends whether the last one has ended or not, and makes up for little.
_CELERYS = Recurrence("1 hour", overlap=Overlap.ALLOW, catchup=timedelta(hours=1))

#: Bytes of a message beside its arguments, with their `argsrepr` and `kwargsrepr`.
_HEADERS = 3_000

#: Two that bring in their declarations at once take turns.
_TAKE_TURNS: LiteralString = f"SELECT pg_advisory_xact_lock({locks.DECLARED_SCHEDULES})"


@dataclass(frozen=True, kw_only=True, slots=True)
class Synced:
    """What came of bringing the declarations into the table, by name."""

    created: list[str] = field(default_factory=list)
    updated: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    not_ours: list[str] = field(default_factory=list)
    #: A release that came later declares them, or declares them otherwise.
    kept: list[str] = field(default_factory=list)
    #: Why each cannot be honoured.
    refused: dict[str, str] = field(default_factory=dict)


def sync_declared(app: Celery, entries: Sequence[Any] | None = None, *, is_repeated: bool = False) -> Synced:
    """Make the app's declared schedules what its code says.

    Args:
        app: Whose code; its modules are imported first.
        entries: Celery's entries; by default those of `beat_schedule`, where `@job(schedule=…)` are too.
        is_repeated: By a beat that runs: what it has logged is not logged again.
    """
    app.loader.import_default_modules()
    app.finalize(auto=True)
    definitions, refused = _read(app, entries)
    declared_by = app.main or ""
    synced = Synced(refused=refused)
    with app.database.transaction() as connection:
        connection.execute(_TAKE_TURNS)
        # An app without a name cannot tell its schedules from those of another one without.
        later = set[UUID]()
        if declared_by:
            later = declared_later(connection, declared_by, definitions, now=database_clock(connection))
        for definition in definitions:
            if definition.schedule_id in later:
                synced.kept.append(definition.name)
                continue
            outcome = app.schedules.store.save(definition, connection).outcome
            _note(synced, outcome, definition.name)
        if declared_by:
            own = {definition.schedule_id for definition in definitions}
            for row in app.schedules.store.list(declared_by=declared_by, limit=None, connection=connection):
                if row.schedule_id in own or row.name in refused:
                    continue
                if row.schedule_id in later:
                    synced.kept.append(row.name)
                else:
                    app.schedules.store.delete(row.tenant, row.schedule_id, connection)
                    synced.deleted.append(row.name)
    if is_repeated and not synced.deleted:
        return synced
    for name, reason in refused.items():
        logger.error("schedule.refused: %s", said_of(name, reason), extra={"schedule": name})
    logger.info(
        "schedules.declared",
        extra={"schedules": len(definitions), "deleted": synced.deleted, "kept": synced.kept},
    )
    return synced


def declare_missing(app: Celery, engine: Engine) -> list[str]:
    """Make the schedules of an engine that code declares and that were never made, as before any beat has started.

    What there is, or was, is for beats to change: a worker may be of an older release.

    Returns:
        Their names.
    """
    definitions = [each for each in _read(app, None)[0] if each.engine is engine]
    if not definitions:
        return []
    made = []
    with app.database.transaction() as connection:
        connection.execute(_TAKE_TURNS)
        for definition in definitions:
            if not app.schedules.store.was_made(definition, connection):
                app.schedules.store.save(definition, connection)
                made.append(definition.name)
    return made


def refused_declarations(app: Celery) -> dict[str, str]:
    """Give the entries that cannot be honoured, and why; asks no database."""
    app.loader.import_default_modules()
    app.finalize(auto=True)
    return _read(app, None)[1]


def said_of(name: str, reason: str) -> str:
    """Say it in one line."""
    return f"the schedule {name!r} is declared and cannot be honoured: {reason}"


def entries_of(app: Celery, declared: Mapping[str, Any], make: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """Make Celery's entries, each by itself: one that cannot be made keeps none of the others.

    Args:
        app: Whose.
        declared: As in `beat_schedule`.
        make: Celery's class of entries.

    Returns:
        The entries by name, and why the others are none.
    """
    entries, refused = {}, {}
    for name, fields in declared.items():
        try:
            entries[str(name)] = make(**dict(fields, name=name, app=app))
        except Exception as error:  # the configuration may hold anything
            refused[str(name)] = f"{type(error).__name__}: {error}"
    return entries, refused


def _read(app: Celery, entries: Sequence[Any] | None) -> tuple[list[ScheduleDefinition], dict[str, str]]:
    from celery.beat import Scheduler

    made, refused = entries_of(app, app.conf.beat_schedule, Scheduler.Entry)
    definitions = []
    for entry in made.values() if entries is None else entries:
        try:
            definitions.append(declared(app, entry))
        except JobBridgeError as error:
            refused[str(entry.name)] = f"{error} {error.hint}"
        except (TypeError, ValueError, AttributeError) as error:
            refused[str(entry.name)] = f"{type(error).__name__}: {error}"
    return sorted(definitions, key=lambda one: one.name), refused


def declared(app: Celery, entry: Any) -> ScheduleDefinition:
    """Give the definition that one of Celery's entries declares.

    Raises:
        JobBridgeError: It cannot be honoured; each of its fires would fail.
    """
    task = app.tasks.get(entry.task)
    recurrence, spec = _recurrence(task, entry)
    options = dict(entry.options)
    engine = options.pop("engine", None) or Engine.named_by(task)
    user_id = options.pop("user_id", None)
    definition = ScheduleDefinition(
        name=entry.name,
        task=entry.task,
        spec=spec,
        engine=app.default_engine if engine is None else engine_named(engine),
        tenant=tenant_named(str(options.pop("tenant", None) or SYSTEM_TENANT)),
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
    stored = sendable(app, definition)
    rehearse(app, definition)
    return stored


def sendable(app: Celery, definition: ScheduleDefinition) -> ScheduleDefinition:
    """Give it with arguments and options as a row holds them: as JSON, where kombu has a form for dates and the like.

    Raises:
        UnsupportedOption: `delay()` could not send them either, a text holds a NUL, or its jobs are to have
            no workflow.
        TooLarge: Its jobs could not be sent.
    """
    parts = {"args": definition.args, "kwargs": definition.kwargs, "options": definition.options}
    stored: dict[str, Any] = {}
    size = 0
    for part, value in parts.items():
        if isinstance(value, str):
            raise UnsupportedOption(
                f"The {part} of the schedule {definition.name!r} are text.", hint="Pass a list."
            )
        try:
            text = json.dumps(json.loads(kombu_json.dumps(value)), allow_nan=False)
        except (TypeError, ValueError, KombuError) as error:
            raise UnsupportedOption(
                f"The {part} of the schedule {definition.name!r} cannot be stored: {error}.",
                hint="Pass what JSON can hold, and make the rest in the task.",
            ) from None
        stored[part] = json.loads(text)
        size += len(text)
        if "\\u0000" in text:
            raise UnsupportedOption(
                f"The {part} of the schedule {definition.name!r} hold a NUL.", hint="Take it out."
            )
    limit, size = app.settings.payload_limit, size + _HEADERS
    if size > limit:
        raise TooLarge.of(f"A message of the schedule {definition.name!r}", size=size, limit=limit)
    if stored["options"].get("temporal_light"):
        raise UnsupportedOption(
            f"The schedule {definition.name!r} asks for temporal_light; Temporal's own starts workflows only.",
            hint="Leave it out, or have its task send another one with temporal_light.",
        )
    names = {"task": definition.task, "queue": definition.queue, "tenant": definition.tenant}
    for what, name in names.items():
        if what == "queue" and name is None:
            continue
        if not isinstance(name, str) or not name or "\x00" in name:
            raise UnsupportedOption(
                f"The {what} of the schedule {definition.name!r} is {name!r:.60}.",
                hint="Pass its name, as text.",
            )
    return replace(definition, **{**stored, "args": tuple(stored["args"])})


def restored(value: Any) -> Any:
    """Give back what `sendable` stored, as the task is to get it."""
    return kombu_json.loads(json.dumps(value))


def app_zone(app: Celery) -> str:
    """Name the time zone that the app is configured with."""
    return str(getattr(app.timezone, "key", None) or app.conf.timezone or "UTC")


def _recurrence(task: Any, entry: Any) -> tuple[Recurrence, Any]:
    handler = handler_of(task)
    if handler is None or handler.schedule is None or entry.name != handler.name:
        return _CELERYS, spec_of(entry.name, entry.schedule)
    own = handler.schedule if isinstance(handler.schedule, Recurrence) else Recurrence(handler.schedule)
    return own, parse_spec(own.when)


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
    return Engine.named_by(task) or default or app.default_engine
