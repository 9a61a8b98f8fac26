"""What time takes out of a bucket: overlaps once, after-hours more."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from random import Random
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobbridge.handlers.buckets.periods import BucketPeriod, carried_over, running_period
from jobbridge.handlers.invoicing.bucket_time import (
    Stretch,
    counted_minutes,
    own_stretches,
    weighted_minutes,
    within_hours,
)
from jobbridge.handlers.invoicing.models import Period, TimeEntry
from jobbridge.handlers.money import round_up
from jobbridge.handlers.providers import BusinessHours
from tests.books import OFFICE_HOURS, time_entry

MINUTE = timedelta(minutes=1)
MONDAY = datetime(2026, 10, 5, tzinfo=ZoneInfo("Europe/Dublin"))

ENTRIES = st.lists(
    st.builds(
        lambda start, minutes, technician: time_entry(
            minutes, started_at=MONDAY + start * MINUTE, technician=technician
        ),
        st.integers(0, 600),
        st.integers(1, 200),
        st.sampled_from(["Ciara Walsh", "Tom Okafor"]),
    ),
    max_size=12,
)

# Around the days on which the clocks change, in both directions and on both hemispheres.
ZONES = st.sampled_from(
    [ZoneInfo(name) for name in ("Europe/Dublin", "America/New_York", "Australia/Lord_Howe")]
)
STARTS = st.datetimes(datetime(2026, 3, 1), datetime(2026, 11, 30), timezones=st.just(UTC))


def at(hour: int, minute: int = 0, *, day: int = 0) -> datetime:
    return MONDAY + timedelta(days=day, hours=hour, minutes=minute)


def count(entries: Sequence[TimeEntry], *, multiplier: str = "1.5", step: int = 15) -> int:
    return counted_minutes(entries, hours=OFFICE_HOURS, multiplier=Decimal(multiplier), round_to=step)


@given(ENTRIES)
def test_each_minute_of_a_technician_counts_once(entries: list[TimeEntry]) -> None:
    worked = {
        (entry.technician, entry.started_at + minute * MINUTE)
        for entry in entries
        for minute in range(entry.minutes)
    }

    assert sum(stretch.minutes for stretch in own_stretches(entries)) == len(worked)


@given(ENTRIES, st.randoms())
def test_the_order_of_entries_does_not_matter(entries: list[TimeEntry], random: Random) -> None:
    shuffled = random.sample(entries, len(entries))

    assert count(shuffled) == count(entries)


@given(ENTRIES, st.sampled_from([1, 6, 15, 30]))
def test_without_overlaps_and_multiplier_it_is_what_an_hourly_line_charges(
    entries: list[TimeEntry], step: int
) -> None:
    apart = [
        time_entry(entry.minutes, technician=f"technician {number}") for number, entry in enumerate(entries)
    ]

    assert count(apart, multiplier="1", step=step) == sum(round_up(entry.minutes, step) for entry in apart)


@given(ENTRIES, ENTRIES)
def test_more_entries_never_use_less(entries: list[TimeEntry], more: list[TimeEntry]) -> None:
    assert count([*entries, *more], step=1) >= count(entries, step=1)


@given(ENTRIES)
def test_it_never_counts_more_than_all_entries_after_hours(entries: list[TimeEntry]) -> None:
    assert count(entries, multiplier="2", step=1) <= sum(2 * entry.minutes for entry in entries)


@given(STARTS, st.integers(1, 3 * 24 * 60), ZONES)
def test_business_hours_are_those_of_the_tenants_clocks(
    start: datetime, minutes: int, zone: ZoneInfo
) -> None:
    start = start.replace(second=0, microsecond=0)
    hours = BusinessHours(
        zone=zone, days=frozenset({1, 2, 3, 4, 7}), opens_at=time(8), closes_at=time(17, 30)
    )
    local = [(start + minute * MINUTE).astimezone(zone) for minute in range(minutes)]
    expected = sum(
        each.isoweekday() in hours.days and hours.opens_at <= each.time() < hours.closes_at for each in local
    )

    pieces = within_hours(Stretch(start=start, end=start + minutes * MINUTE), hours)

    assert sum(piece.minutes for piece in pieces) == expected


@pytest.mark.parametrize(
    ("start", "minutes", "counted"),
    [
        (at(9), 60, 60),  # usual
        (at(18), 60, 90),  # after hours, from the minute at which they end
        (at(17, 30), 60, 75),  # half and half
        (at(7, 50), 10, 15),
        (at(17, 59), 2, 15),  # 1 + 1.5, rounded up
        (at(11, day=5), 60, 90),  # Saturday
        (at(23, 30, day=4), 60, 90),  # over midnight
    ],
)
def test_what_an_entry_counts(start: datetime, minutes: int, counted: int) -> None:
    assert count([time_entry(minutes, started_at=start)]) == counted


def test_an_entry_within_another_counts_nothing_and_is_not_rounded_up() -> None:
    long, within = time_entry(45, started_at=at(10)), time_entry(20, started_at=at(10, 15))

    assert count([within, long]) == 45


def test_two_technicians_at_once_are_two_minutes_a_minute() -> None:
    assert (
        count([time_entry(60, started_at=at(10)), time_entry(60, started_at=at(10), technician="Tom")]) == 120
    )


def test_seconds_are_counted_exactly_and_rounded_once() -> None:
    first = time_entry(10, started_at=at(10))
    second = time_entry(10, started_at=at(10) + timedelta(seconds=30))

    assert [stretch.minutes for stretch in own_stretches([first, second])] == [10, Fraction(1, 2)]
    assert count([first, second], step=1) == 11


def test_a_multiplier_is_exact() -> None:
    stretch = Stretch(start=at(19).astimezone(UTC), end=at(19, 10).astimezone(UTC))

    assert weighted_minutes(stretch, OFFICE_HOURS, Decimal("1.25")) == Fraction(25, 2)


# -- periods


def period_row(
    start: date, end: date, *, included: int = 600, rolled: int = 0, used: int = 0
) -> BucketPeriod:
    return BucketPeriod(
        period_start=start,
        period_end=end,
        included_minutes=included,
        rolled_over_minutes=rolled,
        used_minutes=used,
    )


def october(start: int, end: int, **more: int) -> BucketPeriod:
    return period_row(date(2026, 10, start), date(2026, 10, end), **more)


DAYS = st.dates(date(2026, 1, 1), date(2026, 12, 31))


@pytest.mark.parametrize(
    ("known", "running"),
    [
        ([], (1, 31)),
        ([october(1, 31)], (1, 31)),
        ([october(16, 25)], (16, 25)),
        ([october(1, 10)], (11, 31)),
        ([october(1, 10), october(26, 31)], (11, 25)),
        ([october(1, 31), october(16, 31)], (16, 31)),
    ],
)
def test_the_running_period_is_the_row_that_has_today_else_what_is_left_of_the_month(
    known: list[BucketPeriod], running: tuple[int, int]
) -> None:
    assert running_period(date(2026, 10, 20), known) == october(*running).period


@given(DAYS, st.lists(st.builds(lambda a, b: period_row(min(a, b), max(a, b)), DAYS, DAYS), max_size=4))
def test_today_is_always_in_its_period_and_a_new_period_takes_no_day_of_another(
    today: date, known: list[BucketPeriod]
) -> None:
    period = running_period(today, known)

    assert today in period
    if period not in [each.period for each in known]:
        assert not [each for each in known if each.period.overlap(period)]


@pytest.mark.parametrize(
    ("before", "carried"),
    [
        (period_row(date(2026, 9, 1), date(2026, 9, 30), used=480), 120),
        (period_row(date(2026, 9, 1), date(2026, 9, 30), used=700), 0),
        (period_row(date(2026, 9, 1), date(2026, 9, 30), rolled=120, used=480), 240),
        (period_row(date(2026, 9, 1), date(2026, 9, 30), rolled=120, used=30), 600),  # the 90 old ones lapse
        (period_row(date(2026, 9, 1), date(2026, 9, 29), used=0), 0),  # not the period before
    ],
)
def test_what_is_left_is_carried_over_once(before: BucketPeriod, carried: int) -> None:
    assert carried_over(Period(start=date(2026, 10, 1), end=date(2026, 10, 31)), [before]) == carried


def test_nothing_is_carried_over_from_nothing() -> None:
    assert carried_over(Period(start=date(2026, 10, 1), end=date(2026, 10, 31)), []) == 0
