"""What `@job(schedule=…)` declares, as Celery's beat understands it."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

from celery.schedules import ParseException, crontab, schedule

from jobbridge.errors import UnsupportedOption

_INTERVAL = re.compile(r"^\s*(\d+)\s*(second|minute|hour|day|week)s?\s*$", re.IGNORECASE)


def beat_schedule(declared: str | timedelta) -> Any:
    """Give the schedule for a cron expression, an interval in words, or a timedelta.

    Args:
        declared: `"0 1 * * *"` (five fields), `"24 hours"`, or `timedelta(hours=24)`.

    Raises:
        UnsupportedOption: It is none of these, or beat could not honour it.
    """
    if isinstance(declared, timedelta):
        return _every(declared, declared)
    interval = _INTERVAL.match(declared)
    if interval:
        amount, unit = interval.groups()
        return _every(timedelta(**{f"{unit.lower()}s": int(amount)}), declared)
    if len(declared.split()) != 5:
        raise _refused(declared, "it has not five fields")
    try:
        return crontab.from_string(declared)
    except (ParseException, ValueError) as error:
        raise _refused(declared, str(error)) from None


def _every(interval: timedelta, declared: object) -> Any:
    if interval < timedelta(seconds=1):
        raise _refused(declared, "it is shorter than a second")
    return schedule(interval)


def _refused(declared: object, reason: str) -> UnsupportedOption:
    return UnsupportedOption(
        f"The schedule {declared!r} cannot be honoured: {reason}.",
        hint='Write five cron fields ("0 1 * * *"), an interval ("24 hours"), or a timedelta.',
    )
