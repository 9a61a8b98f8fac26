"""What a schedule says about its times: cron, an interval, or once."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Self, TypeAlias, assert_never
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from jobbridge.core.schedules.cron import Cron, refused
from jobbridge.core.schedules.intervals import Every, looks_like_interval
from jobbridge.errors import UnsupportedOption


class SpecKind(StrEnum):
    """How a schedule's text is to be read; the column `kind`."""

    CRON = "cron"
    EVERY = "every"
    ONCE = "once"


@dataclass(frozen=True, slots=True)
class Once:
    """One instant, aware UTC, whole seconds.

    Raises:
        UnsupportedOption: It has no time zone.
    """

    at: datetime

    def __post_init__(self) -> None:
        if self.at.tzinfo is None:
            raise UnsupportedOption(
                f"The schedule {self.at.isoformat()} has no time zone.",
                hint="Add one: datetime.now(UTC), or value.replace(tzinfo=ZoneInfo(...)).",
            )
        object.__setattr__(self, "at", self.at.astimezone(UTC).replace(microsecond=0))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read an ISO instant with its offset.

        Raises:
            UnsupportedOption: It is none.
        """
        try:
            return cls(datetime.fromisoformat(text))
        except ValueError:
            raise refused(text, "it is no instant; write 2026-12-24T18:00:00+01:00") from None

    @property
    def text(self) -> str:
        return self.at.isoformat()

    def __str__(self) -> str:
        return self.text


ScheduleSpec: TypeAlias = Cron | Every | Once


def parse_spec(declared: ScheduleSpec | str | timedelta | datetime) -> ScheduleSpec:
    """Read what a person declares: cron, an interval in words, a timedelta, or an instant.

    Raises:
        UnsupportedOption: It is none of these, or an engine could not honour it.
    """
    match declared:
        case Cron() | Every() | Once():
            return declared
        case timedelta():
            return Every(interval=declared)
        case datetime():
            return Once(declared)
        case str() if looks_like_interval(declared):
            return Every.parse(declared)
        case str() if "T" in declared and declared[:4].isdecimal():
            return Once.parse(declared)
        case str():
            return Cron.parse(declared)
        case _:
            raise refused(declared, f"it is of the type {type(declared).__name__}")


def kind_of(spec: ScheduleSpec) -> SpecKind:
    match spec:
        case Cron():
            return SpecKind.CRON
        case Every():
            return SpecKind.EVERY
        case Once():
            return SpecKind.ONCE
        case _:
            assert_never(spec)


def read_spec(kind: SpecKind, text: str) -> ScheduleSpec:
    """Read what `kind_of` and the spec's own `text` tell.

    Raises:
        UnsupportedOption: The text is not of that kind.
    """
    match kind:
        case SpecKind.CRON:
            return Cron.parse(text)
        case SpecKind.EVERY:
            return Every.parse(text)
        case SpecKind.ONCE:
            return Once.parse(text)
        case _:
            assert_never(kind)


def zone_named(name: str) -> ZoneInfo:
    """Give the time zone of that name of the IANA database.

    Raises:
        UnsupportedOption: There is none.
    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # a path, a folder of the database
        raise UnsupportedOption(
            f"There is no time zone {name!r}.", hint="Use a name such as Europe/Berlin, or UTC."
        ) from None
