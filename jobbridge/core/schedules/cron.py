"""Cron expressions: five fields, of wall-clock time.

Day-of-month and day-of-week must both match, as in Celery's `crontab` and Temporal's calendars (Unix cron fires when
either does).
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Self

from jobbridge.errors import UnsupportedOption

_MONTHS = {name.upper(): number for number, name in enumerate(calendar.month_abbr) if name}
_WEEKDAYS = {"SUN": 0, "MON": 1, "TUE": 2, "WED": 3, "THU": 4, "FRI": 5, "SAT": 6}
_LONGEST_MONTH = dict(enumerate((31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31), start=1))
_ITEM = re.compile(r"^(\*|\w+)(?:-(\w+))?(?:/(\d+))?$")

#: What other dialects of cron have, and neither engine here.
_FOREIGN = {
    "?": "'?' is not known here; write '*'",
    "L": "'L' (last day) cannot be honoured",
    "W": "'W' (nearest weekday) cannot be honoured",
    "#": "'#' (nth weekday of the month) cannot be honoured",
    "@": "'@' names are not known here; write the five fields",
}
HINT = 'Write five cron fields ("0 1 * * *"), an interval ("24 hours"), or pass a timedelta or an instant.'


@dataclass(frozen=True, kw_only=True, slots=True)
class _Field:
    name: str
    first: int
    last: int
    names: dict[str, int]
    last_in_text: int  # Sunday is also 7


_FIELDS = (
    _Field(name="minute", first=0, last=59, names={}, last_in_text=59),
    _Field(name="hour", first=0, last=23, names={}, last_in_text=23),
    _Field(name="day-of-month", first=1, last=31, names={}, last_in_text=31),
    _Field(name="month", first=1, last=12, names=_MONTHS, last_in_text=12),
    _Field(name="day-of-week", first=0, last=6, names=_WEEKDAYS, last_in_text=7),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Cron:
    """The wall-clock minutes that match in all five fields.

    Attributes:
        weekdays: 0 is Sunday.
        text: As it was written, with single spaces; two of the same values are equal whatever their text.

    Raises:
        UnsupportedOption: No day ever matches.
    """

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: tuple[int, ...]
    months: tuple[int, ...]
    weekdays: tuple[int, ...]
    text: str

    def __post_init__(self) -> None:
        if not any(day <= _LONGEST_MONTH[month] for month in self.months for day in self.days):
            raise refused(self.text, "that day is in none of those months")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read five fields: `*`, numbers, names, `a-b`, `*/n`, `a-b/n`, and lists of these.

        Raises:
            UnsupportedOption: An engine could not honour it, or no day ever matches.
        """
        written = text.split()
        if text.lstrip().startswith("@"):
            raise refused(text, _FOREIGN["@"])
        if len(written) != len(_FIELDS):
            raise refused(text, f"it has {len(written)} fields, and not five")
        values = [_values(text, *pair) for pair in zip(_FIELDS, written, strict=True)]
        return cls._of(values, " ".join(written))

    @classmethod
    def of_values(cls, *fields: Sequence[int]) -> Self:
        """Make one of the matching values of each field, in cron's order.

        Raises:
            UnsupportedOption: No day ever matches.
        """
        values = [tuple(sorted(set(field))) for field in fields]
        text = " ".join(_written(*pair) for pair in zip(_FIELDS, values, strict=True))
        return cls._of(values, text)

    @classmethod
    def _of(cls, values: Sequence[tuple[int, ...]], text: str) -> Self:
        minutes, hours, days, months, weekdays = values
        return cls(minutes=minutes, hours=hours, days=days, months=months, weekdays=weekdays, text=text)

    def __eq__(self, other: object) -> bool:
        return self._values == other._values if isinstance(other, Cron) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._values)

    def __str__(self) -> str:
        return self.text

    @property
    def _values(self) -> tuple[tuple[int, ...], ...]:
        return (self.minutes, self.hours, self.days, self.months, self.weekdays)

    @property
    def is_hourly(self) -> bool:
        """Whether it matches in each hour of its days: then it counts hours as they pass."""
        return len(self.hours) == 24

    @property
    def is_daily(self) -> bool:
        """Whether it matches on each day."""
        return len(self.days) == 31 and len(self.months) == 12 and len(self.weekdays) == 7

    def matches_date(self, day: date) -> bool:
        """Tell whether month, day-of-month and day-of-week match, all of them."""
        return day.month in self.months and day.day in self.days and day.isoweekday() % 7 in self.weekdays


def _values(text: str, field: _Field, written: str) -> tuple[int, ...]:
    found: set[int] = set()
    for item in written.split(","):
        found.update(_item_values(text, field, item))
    return tuple(sorted(found))


def _item_values(text: str, field: _Field, item: str) -> set[int]:
    match = _ITEM.match(item)
    if match is None:
        raise refused(text, _foreign(item) or f"{item!r} is no value of the {field.name}")
    low, high, step = match.groups()
    if low == "*":
        if high is not None:
            raise refused(text, f"{item!r} is no value of the {field.name}")
        first, last = field.first, field.last
    else:
        first = _number(text, field, low)
        last = first if high is None else _number(text, field, high)
        if high is None and step is not None:
            raise refused(text, f"{item!r} means different things elsewhere; write {low}-{field.last}/{step}")
        if field.names is _WEEKDAYS and high is not None and last == 0:
            last = 7  # MON-SUN
        if last < first:
            raise refused(text, f"the {field.name} range {item!r} ends before it begins; write two ranges")
    by = _step(text, field, item, step, last - first)
    return {value % 7 if field.names is _WEEKDAYS else value for value in range(first, last + 1, by)}


def _step(text: str, field: _Field, item: str, step: str | None, span: int) -> int:
    if step is None:
        return 1
    # "*/90" minutes would be once an hour: it is not what it says.
    if not 1 <= int(step) <= max(span, 1):
        raise refused(text, f"the step of {item!r} does not fit the {field.name}")
    return int(step)


def _number(text: str, field: _Field, written: str) -> int:
    named = field.names.get(written.upper())
    if named is not None:
        return named
    if not written.isdecimal() or not written.isascii():
        raise refused(text, _foreign(written) or f"{written!r} is no {field.name}")
    value = int(written)
    if not field.first <= value <= field.last_in_text:
        raise refused(text, f"the {field.name} {value} is not in {field.first}-{field.last_in_text}")
    return value


def _foreign(item: str) -> str | None:
    return next((why for sign, why in _FOREIGN.items() if sign in item.upper()), None)


def _written(field: _Field, values: tuple[int, ...]) -> str:
    if len(values) == field.last - field.first + 1:
        return "*"
    return ",".join(map(str, values))


def refused(text: object, reason: str) -> UnsupportedOption:
    """Say why a schedule cannot be honoured."""
    return UnsupportedOption(f"The schedule {text!r} cannot be honoured: {reason}.", hint=HINT)
