"""The schedules of django-celery-beat, read from its tables and made ours. Django need not be there.

Each keeps its name, so bringing them in again changes what was changed there and leaves the rest. What beat would do
otherwise than we can is refused by its name, and the others come. Nothing is written in its tables: stop its beat.

Source: django-celery-beat 2.9, models.py and schedulers.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg
from celery.schedules import crontab
from kombu.utils import json as kombu_json
from psycopg.rows import kwargs_row

from jobbridge.app.periodic import spec_of
from jobbridge.app.schedules.declared import app_zone, engine_for
from jobbridge.core.keys import SYSTEM_TENANT, Engine
from jobbridge.core.schedules.definition import ScheduleDefinition
from jobbridge.core.schedules.fires import fires
from jobbridge.core.schedules.intervals import Every
from jobbridge.core.schedules.policies import Overlap
from jobbridge.core.schedules.specs import Once, ScheduleSpec, zone_named
from jobbridge.errors import ConfigurationError, JobBridgeError, UnsupportedOption
from jobbridge.store.database import Database

if TYPE_CHECKING:
    from jobbridge.app.application import Celery

#: Those that Celery itself puts there, and whose work is done otherwise here.
_NOT_NEEDED = {
    "celery.backend_cleanup": "results are rows here, and the pruner deletes them (docs/maintenance.md)"
}
#: As Celery's beat does: it sends whether the last one has ended or not, and makes up for little.
_OVERLAP, _CATCHUP = Overlap.ALLOW, timedelta(hours=1)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_PERIODIC_TASKS: LiteralString = """
SELECT to_jsonb(tasks) AS task, to_jsonb(intervals) AS interval, to_jsonb(crontabs) AS crontab,
    to_jsonb(clocked) AS clocked, tasks.solar_id IS NOT NULL AS is_solar
FROM django_celery_beat_periodictask AS tasks
LEFT JOIN django_celery_beat_intervalschedule AS intervals ON intervals.id = tasks.interval_id
LEFT JOIN django_celery_beat_crontabschedule AS crontabs ON crontabs.id = tasks.crontab_id
LEFT JOIN django_celery_beat_clockedschedule AS clocked ON clocked.id = tasks.clocked_id
ORDER BY tasks.name
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Imported:
    """What came of one schedule.

    Attributes:
        outcome: created, updated, unchanged, left out or refused.
        note: Why, if it is not as it was; or what is different from now on.
    """

    name: str
    task: str
    outcome: str
    note: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class _PeriodicTask:
    task: Mapping[str, Any]
    interval: Mapping[str, Any] | None
    crontab: Mapping[str, Any] | None
    clocked: Mapping[str, Any] | None
    is_solar: bool


def import_schedules(
    app: Celery,
    *,
    database: Database | None = None,
    engine: Engine | str | None = None,
    is_tried: bool = False,
) -> list[Imported]:
    """Make the schedules of django-celery-beat's tables ours, by name.

    A disabled one is made paused; of one that there is already, whether it is paused stays as it is.

    Args:
        app: Whose tasks they are, and whose schedules they become.
        database: Where its tables are; by default where ours are.
        engine: Who is to fire them and run their jobs; else as for a job.
        is_tried: Write nothing, and tell what would come of it (`created` also for what is there).

    Raises:
        ConfigurationError: The tables are not there.
    """
    app.loader.import_default_modules()
    app.finalize(auto=True)
    found = []
    for each in _read(database or app.database):
        name, task = each.task["name"], each.task["task"]
        if task in _NOT_NEEDED:
            found.append(Imported(name=name, task=task, outcome="left out", note=_NOT_NEEDED[task]))
            continue
        try:
            found.append(_import(app, each, engine, is_tried=is_tried))
        except (JobBridgeError, ValueError, TypeError) as error:
            reason = f"{error} {getattr(error, 'hint', '')}".strip()
            found.append(Imported(name=name, task=task, outcome="refused", note=reason))
    return found


def _read(database: Database) -> list[_PeriodicTask]:
    try:
        with (
            database.connection(check_schema=False) as connection,
            connection.cursor(row_factory=kwargs_row(_PeriodicTask)) as cursor,
        ):
            return cursor.execute(_PERIODIC_TASKS).fetchall()
    except psycopg.errors.UndefinedTable:
        raise ConfigurationError(
            f"{database.target} has no tables of django-celery-beat.",
            hint="Name the database that has them: --database-url postgresql://user:password@host/name.",
        ) from None


def _import(app: Celery, found: _PeriodicTask, engine: Engine | str | None, *, is_tried: bool) -> Imported:
    task, now = found.task, datetime.now(UTC)
    name, known = task["name"], app.tasks.get(task["task"])
    if known is None:
        raise UnsupportedOption(
            f"No task {task['task']!r} is known here.",
            hint="Name the app that has it with `-A`.",
        )
    here = app.schedules.store.find(name, SYSTEM_TENANT)
    spec, zone, notes = _timing(app, found, now, here[0].parsed if here else None)
    definition = ScheduleDefinition(
        name=name,
        task=task["task"],
        spec=spec,
        engine=engine_for(app, known, engine, None),
        args=tuple(_loaded(task["args"], "args", "[]")),
        kwargs=_loaded(task["kwargs"], "kwargs", "{}"),
        options=_options(task),
        zone=zone,
        overlap=_OVERLAP,
        catchup=_CATCHUP,
        queue=task["queue"] or None,
        priority=_priority(task["priority"], notes),
    )
    why_paused = _why_paused(task, now)
    if is_tried:
        return Imported(
            name=name, task=task["task"], outcome="created", note=why_paused or "; ".join(notes) or None
        )
    handle = app.schedules.save(definition)
    if why_paused and handle.outcome == "created":
        app.schedules.pause(handle.schedule_id, handle.tenant, note=why_paused)
    note = "; ".join(
        [*notes, *([f"paused: {why_paused}"] if why_paused and handle.outcome == "created" else [])]
    )
    return Imported(name=name, task=task["task"], outcome=str(handle.outcome.value), note=note or None)


def _timing(
    app: Celery, found: _PeriodicTask, now: datetime, here: ScheduleSpec | None
) -> tuple[ScheduleSpec, str, list[str]]:
    """Give its times, their zone, and what is to be said; `here`: its times as they were brought in before."""
    task, notes = found.task, list[str]()
    zone = app_zone(app)
    if found.is_solar:
        raise UnsupportedOption("It follows the sun (solar).", hint="Give it a crontab.")
    if found.clocked is not None:
        return Once(_instant(found.clocked["clocked_time"])), zone, notes
    if found.crontab is not None:
        fields = found.crontab
        zone = fields.get("timezone") or zone
        spec = spec_of(
            task["name"],
            crontab(
                minute=fields["minute"], hour=fields["hour"], day_of_month=fields["day_of_month"],
                month_of_year=fields["month_of_year"], day_of_week=fields["day_of_week"],
            ),
        )  # fmt: skip
    elif found.interval is not None:
        spec = _interval(found, here)
    else:
        raise UnsupportedOption("It has no schedule.", hint="Give it one, or delete it.")
    begins_at = _instant(task["start_time"]) if task["start_time"] else now
    if task["one_off"]:
        if task["total_run_count"]:
            raise UnsupportedOption("It is one-off, and has run.", hint="Delete it.")
        if not isinstance(here, Once):  # else it would come once more for each import
            here = Once(next(iter(fires(spec, zone_named(zone), max(begins_at, now)))))
        return here, zone, [f"once, at {here}"]
    if begins_at > now:
        raise UnsupportedOption(
            f"It begins at {begins_at.isoformat()} (start_time).", hint="Import it again when it has begun."
        )
    return spec, zone, notes


def _interval(found: _PeriodicTask, here: ScheduleSpec | None) -> Every:
    """Give its interval, which goes on counting from its last run: ours stand on a grid."""
    assert found.interval is not None
    interval = timedelta(**{found.interval["period"]: found.interval["every"]})
    if isinstance(here, Every) and here.interval == interval:
        return here  # its last run there has moved on, by the time that each took to be sent
    Every(interval=interval)  # says what is wrong with it
    since = _instant(found.task["last_run_at"] or found.task["date_changed"])
    return Every(interval=interval, phase=(since.replace(microsecond=0) - _EPOCH) % interval)


def _options(task: Mapping[str, Any]) -> dict[str, Any]:
    for name in ("exchange", "routing_key"):
        if task[name]:
            raise UnsupportedOption(f"It has the {name} {task[name]!r}.", hint="Give it a queue instead.")
    options: dict[str, Any] = {}
    headers = _loaded(task["headers"], "headers", "{}")
    if headers:
        options["headers"] = headers
    if task["expires"]:
        options["expires"] = _instant(task["expires"])
    elif task["expire_seconds"]:
        options["expires"] = task["expire_seconds"]
    return options


def _priority(given: int | None, notes: list[str]) -> int | None:
    if given is None or given <= 9:
        return given
    notes.append(f"priority {given} is 9 here, the highest")
    return 9


def _why_paused(task: Mapping[str, Any], now: datetime) -> str | None:
    if not task["enabled"]:
        return "it was disabled in django-celery-beat"
    if task["expires"] and _instant(task["expires"]) <= now:
        return "it had expired in django-celery-beat"
    return None


def _loaded(text: str | None, what: str, default: str) -> Any:
    try:
        value = kombu_json.loads(text or default)
    except ValueError as error:
        raise UnsupportedOption(f"Its {what} are no JSON: {error}.", hint="Correct them there.") from None
    if type(value) is not type(json.loads(default)):
        raise UnsupportedOption(f"Its {what} are {text!r:.60}.", hint=f"They must be like {default}.")
    return value


def _instant(text: str) -> datetime:
    at = datetime.fromisoformat(text)
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)  # USE_TZ = False
