"""What a schedule is to Celery, and what a schedule of Celery is to us."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from celery.schedules import crontab, schedule

from jobbridge.core.schedules.cron import Cron
from jobbridge.core.schedules.definition import Recurrence
from jobbridge.core.schedules.intervals import Every
from jobbridge.core.schedules.specs import Once, ScheduleSpec, parse_spec
from jobbridge.errors import UnsupportedOption


def beat_schedule(declared: Recurrence | ScheduleSpec | str | timedelta | datetime) -> Any:
    """Give the schedule as Celery's own beat understands it.

    Args:
        declared: `"0 1 * * *"` (five fields), `"24 hours"`, `timedelta(hours=24)`, or a Recurrence.

    Raises:
        UnsupportedOption: It is none of these, or an engine could not honour it; Celery knows nothing that is once.
    """
    spec = parse_spec(declared.when if isinstance(declared, Recurrence) else declared)
    match spec:
        case Cron():
            fields = (spec.minutes, spec.hours, spec.days, spec.months, spec.weekdays)
            minute, hour, day, month, weekday = (",".join(map(str, values)) for values in fields)
            return crontab(
                minute=minute, hour=hour, day_of_month=day, month_of_year=month, day_of_week=weekday
            )
        case Every():
            return schedule(spec.interval)
        case Once():
            raise UnsupportedOption(
                f"A handler cannot be declared to run once, at {spec}.",
                hint="Send the job with run_at=..., or make a schedule with app.schedules.create().",
            )


def spec_of(name: str, scheduled: Any) -> ScheduleSpec:
    """Read what an entry of `beat_schedule` says of its times.

    Raises:
        UnsupportedOption: It is a kind of schedule that an engine could not honour.
    """
    entry: Any = scheduled  # the stubs leave out what is read here
    if isinstance(scheduled, crontab):
        return Cron.of_values(
            entry.minute,
            entry.hour,
            entry.day_of_month,
            entry.month_of_year,
            entry.day_of_week,
        )
    if type(scheduled) is schedule:
        return Every(interval=entry.run_every)
    raise UnsupportedOption(
        f"The schedule {name!r} is a {type(scheduled).__qualname__}, which cannot be honoured.",
        hint="Use crontab, an interval or a timedelta; or run beat with -S celery.beat:PersistentScheduler.",
    )
