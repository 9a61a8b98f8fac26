from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from celery.schedules import crontab
from hypothesis import given, settings
from hypothesis import strategies as st

from jobbridge import Celery
from jobbridge.app.periodic import beat_schedule, spec_of
from jobbridge.core.schedules.cron import Cron
from jobbridge.core.schedules.fires import fires, fires_between, is_fire, next_fire
from jobbridge.core.schedules.mirroring import clock_changes, mirror
from jobbridge.core.schedules.specs import Once, parse_spec
from jobbridge.settings import load_settings
from tests.unit.core.test_schedule_cron import crons

BERLIN = ZoneInfo("Europe/Berlin")
NEW_YORK = ZoneInfo("America/New_York")
YEAR = 365 * timedelta(days=1)
ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/St_Johns",
    "Australia/Lord_Howe",
    "Asia/Kathmandu",
    "Africa/Casablanca",
    "America/Santiago",
]
instants = st.datetimes(
    datetime(2024, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC)
)  # aware, with microseconds


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[misc, arg-type]


def on_the_clock(text: str, zone: ZoneInfo, start: datetime, end: datetime) -> list[str]:
    return [f"{t.astimezone(zone):%H:%M%z}" for t in fires_between(parse_spec(text), zone, start, end)]


SPRING = (utc(2026, 3, 29), utc(2026, 3, 29, 4))  # Berlin leaps from 02:00 to 03:00
AUTUMN = (utc(2026, 10, 24, 23), utc(2026, 10, 25, 3))  # Berlin has the hour from 02:00 twice


@pytest.mark.parametrize(
    ("cron", "when", "expected"),
    [
        ("30 2 * * *", SPRING, []),
        ("0 3 * * *", SPRING, ["03:00+0200"]),
        ("30 1-3 * * *", SPRING, ["01:30+0100", "03:30+0200"]),
        ("*/30 * * * *", (SPRING[0], utc(2026, 3, 29, 1)), ["01:00+0100", "01:30+0100", "03:00+0200"]),
        ("30 2 * * *", AUTUMN, ["02:30+0200"]),
        ("0 3 * * *", AUTUMN, ["03:00+0100"]),
        ("30 1-3 * * *", AUTUMN, ["01:30+0200", "02:30+0200", "03:30+0100"]),
        ("30 * * * *", AUTUMN, ["01:30+0200", "02:30+0200", "02:30+0100", "03:30+0100"]),
    ],
)  # fmt: skip
def test_hours_that_are_leapt_over_or_come_twice(
    cron: str, when: tuple[datetime, datetime], expected: list[str]
) -> None:
    assert on_the_clock(cron, BERLIN, *when) == expected


def test_a_daily_fire_comes_once_on_each_day_that_has_its_hour() -> None:
    for zone, hour in ((BERLIN, 2), (NEW_YORK, 1)):
        days = [
            instant.astimezone(zone).date()
            for instant in fires_between(
                parse_spec(f"30 {hour} * * *"), zone, utc(2026, 1, 2), utc(2027, 1, 2)
            )
        ]
        assert len(days) == len(set(days)) >= 364


@pytest.mark.parametrize("zone", ZONES)
def test_what_fires_each_quarter_of_an_hour_does_so_whatever_the_clock_does(zone: str) -> None:
    quarters = list(
        fires_between(parse_spec("*/15 * * * *"), ZoneInfo(zone), utc(2026, 1, 1), utc(2027, 1, 1))
    )

    gaps = {later - earlier for earlier, later in pairwise(quarters)}
    assert gaps == {timedelta(minutes=15)}


def test_a_clock_that_goes_back_over_midnight() -> None:
    """In 2006, St. John's went at 00:01 back to 23:01 of the day before."""
    hours = on_the_clock(
        "0 * * * *", ZoneInfo("America/St_Johns"), utc(2006, 10, 29, 1), utc(2006, 10, 29, 5)
    )

    assert hours == ["23:00-0230", "00:00-0230", "00:00-0330", "01:00-0330"]
    days = on_the_clock("0 0 * * *", ZoneInfo("America/St_Johns"), utc(2006, 10, 29, 1), utc(2006, 10, 29, 5))
    assert days == ["00:00-0230"]


def test_day_of_month_and_day_of_week_must_both_match() -> None:
    fridays = list(
        fires_between(parse_spec("0 0 13 * FRI"), ZoneInfo("UTC"), utc(2026, 1, 1), utc(2027, 1, 1))
    )

    assert fridays == [utc(2026, 2, 13), utc(2026, 3, 13), utc(2026, 11, 13)]


def test_intervals_count_from_the_epoch() -> None:
    utc_zone = ZoneInfo("UTC")
    assert next_fire(parse_spec("24 hours"), BERLIN, utc(2026, 6, 1, 12)) == utc(2026, 6, 2)
    assert next_fire(parse_spec("1 day offset 2 hours"), utc_zone, utc(2026, 6, 1, 12)) == utc(2026, 6, 2, 2)
    sevens = list(islice(fires(parse_spec("7 hours"), utc_zone, utc(2026, 6, 1)), 2))
    assert [(instant.timestamp() / 3600) % 7 for instant in sevens] == [0, 0]


def test_once_and_what_is_over() -> None:
    once = Once(utc(2026, 6, 1))

    assert next_fire(once, BERLIN, utc(2026, 5, 1)) == utc(2026, 6, 1)
    assert next_fire(once, BERLIN, utc(2026, 6, 1)) is None
    assert next_fire(parse_spec("0 0 1 1 *"), BERLIN, utc(2099, 6, 1)) is None


@given(crons, st.sampled_from(ZONES), instants)
@settings(deadline=None, max_examples=150)
def test_fires_ascend_match_the_wall_clock_and_begin_wherever_asked(
    fields: Any, zone_name: str, after: datetime
) -> None:
    cron, zone = Cron.of_values(*fields), ZoneInfo(zone_name)
    found = list(islice(fires(cron, zone, after), 20))

    assert all(earlier < later for earlier, later in pairwise([after, *found]))
    for instant in found:
        wall = instant.astimezone(zone)
        assert wall.minute in cron.minutes
        assert wall.hour in cron.hours
        assert cron.matches_date(wall.date())
        assert is_fire(cron, zone, instant)
    if len(found) > 2:
        assert list(islice(fires(cron, zone, found[0]), len(found) - 1)) == found[1:]
        assert not is_fire(cron, zone, found[0] + timedelta(seconds=1))


class _Celerys:
    """Celery's crontab, which is asked when it would fire next."""

    def __init__(self, zone: str) -> None:
        self.app = Celery("compared", settings=load_settings({}), set_as_current=False)
        self.app.conf.timezone = zone

    def next_after(self, cron: Cron, after: datetime) -> datetime:
        schedule = beat_schedule(cron)
        schedule.app = self.app
        schedule.nowfun = lambda: after.astimezone(self.app.timezone)
        remaining: timedelta = schedule.remaining_estimate(after)
        return (after + remaining).astimezone(UTC)


@given(crons, st.sampled_from(["UTC", "Europe/Berlin", "America/New_York"]), instants)
@settings(deadline=None, max_examples=100)
def test_celerys_crontab_fires_at_the_same_instants_while_no_clock_changes(
    fields: Any, zone_name: str, after: datetime
) -> None:
    cron, zone, after = Cron.of_values(*fields), ZoneInfo(zone_name), after.replace(microsecond=0)
    ours = next_fire(cron, zone, after)
    if ours is None or ours - after > YEAR:
        return  # Celery looks for four years, and counts differently beyond
    if any(True for _ in clock_changes(zone, after - timedelta(days=2), ours + timedelta(days=2))):
        return  # there it differs from release to release (celery#1604, #6438)

    assert _Celerys(zone_name).next_after(cron, after) == ours


def test_celerys_schedules_are_read_as_they_are() -> None:
    assert spec_of("x", crontab(minute="*/15", hour={1, 2})) == Cron.parse("*/15 1,2 * * *")
    assert spec_of("x", beat_schedule("15 minutes")) == parse_spec("15 minutes")


@pytest.mark.parametrize("zone", ZONES)
def test_the_changes_of_a_clock(zone: str) -> None:
    changes = list(clock_changes(ZoneInfo(zone), utc(2026, 1, 1), utc(2027, 1, 1)))

    assert len(changes) == (0 if zone in ("UTC", "Asia/Kathmandu") else 2)
    for change in changes:
        before, after = (
            (change + shift).astimezone(ZoneInfo(zone)).utcoffset()
            for shift in (timedelta(seconds=-1), timedelta())
        )
        assert before != after  # fmt: skip


def test_what_temporal_is_told() -> None:
    now = utc(2026, 6, 1)

    hourly = mirror(parse_spec("*/20 * * * *"), ZoneInfo("Asia/Kathmandu"), now)
    assert (hourly.calendar, hourly.zone_name, hourly.instants) == (Cron.parse("15,35,55 * * * *"), "UTC", ())
    daily = mirror(parse_spec("30 2 * * *"), BERLIN, now)
    assert (daily.zone_name, daily.instants[0]) == ("Europe/Berlin", utc(2026, 10, 25, 0, 30))
    assert daily.fresh_until is not None
    assert mirror(parse_spec("30 2 * * *"), ZoneInfo("UTC"), now).fresh_until is None
    assert mirror(Once(now), BERLIN, now).instants == (now,)
