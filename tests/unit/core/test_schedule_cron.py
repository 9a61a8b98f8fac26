from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobbridge.core.schedules.cron import Cron
from jobbridge.core.schedules.intervals import Every
from jobbridge.core.schedules.specs import Once, SpecKind, kind_of, parse_spec, read_spec, zone_named
from jobbridge.errors import UnsupportedOption

RANGES = [(0, 59), (0, 23), (1, 31), (1, 12), (0, 6)]


def values(low: int, high: int) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(low, high), min_size=1, max_size=6, unique=True)


crons = st.tuples(*(st.just(list(range(a, b + 1))) | values(a, b) for a, b in RANGES)).filter(
    lambda fields: not (set(fields[3]) <= {2, 4, 6, 9, 11} and min(fields[2]) >= 30)
)


@pytest.mark.parametrize(
    ("text", "field", "expected"),
    [
        ("*/15 * * * *", "minutes", (0, 15, 30, 45)),
        ("5-59/10 * * * *", "minutes", (5, 15, 25, 35, 45, 55)),
        ("0 1,3,20-22 * * *", "hours", (1, 3, 20, 21, 22)),
        ("0 0 1-7 * *", "days", (1, 2, 3, 4, 5, 6, 7)),
        ("0 0 * jan,JUN-Aug *", "months", (1, 6, 7, 8)),
        ("0 0 * * mon-fri", "weekdays", (1, 2, 3, 4, 5)),
        ("0 0 * * 7", "weekdays", (0,)),
        ("0 0 * * 5-7", "weekdays", (0, 5, 6)),
        ("0 0 * * FRI-SUN", "weekdays", (0, 5, 6)),
        ("0 0 * * SUN", "weekdays", (0,)),
    ],
)
def test_a_field_matches(text: str, field: str, expected: tuple[int, ...]) -> None:
    assert getattr(Cron.parse(text), field) == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("* * * *", "it has 4 fields"),
        ("0 0 * * * *", "it has 6 fields"),
        ("", "it has 0 fields"),
        ("@reboot", "'@' names are not known here"),
        ("@every 5m", "'@' names are not known here"),
        ("0 0 L * *", "'L' (last day)"),
        ("0 0 15W * *", "'W' (nearest weekday)"),
        ("0 0 * * 5#2", "'#' (nth weekday of the month)"),
        ("0 0 ? * 1", "'?' is not known here; write '*'"),
        ("60 * * * *", "the minute 60 is not in 0-59"),
        ("0 24 * * *", "the hour 24 is not in 0-23"),
        ("0 0 0 * *", "the day-of-month 0 is not in 1-31"),
        ("0 0 * 13 *", "the month 13 is not in 1-12"),
        ("0 0 * * 8", "the day-of-week 8 is not in 0-7"),
        ("0 0 * * MONDAY", "'MONDAY' is no day-of-week"),
        ("5-1 * * * *", "ends before it begins; write two ranges"),
        ("5/10 * * * *", "means different things elsewhere; write 5-59/10"),
        ("*/0 * * * *", "the step of '*/0' does not fit"),
        ("*/90 * * * *", "the step of '*/90' does not fit the minute"),
        ("*-5 * * * *", "'*-5' is no value of the minute"),
        ("1,,2 * * * *", "'' is no value of the minute"),
        ("-1 * * * *", "'-1' is no value of the minute"),
        ("٣ * * * *", "is no minute"),
        ("0 0 30 2 *", "that day is in none of those months"),
        ("0 0 31 4,6,9,11 *", "that day is in none of those months"),
    ],
)
def test_what_cannot_be_honoured_is_refused_with_its_reason(text: str, reason: str) -> None:
    with pytest.raises(UnsupportedOption) as caught:
        Cron.parse(text)

    assert reason in str(caught.value)
    assert repr(text)[:-1] in str(caught.value)
    assert "five cron fields" in caught.value.hint


@given(crons)
def test_the_text_of_values_reads_back_as_these_values(fields: Any) -> None:
    cron = Cron.of_values(*fields)

    assert Cron.parse(cron.text) == cron
    assert cron.hours == tuple(sorted(fields[1]))


def test_equal_values_are_equal_however_written() -> None:
    assert Cron.parse("0,30 * * * *") == Cron.parse("*/30  *  * * *")
    assert str(Cron.parse(" */30  *  * * * ")) == "*/30 * * * *"


@pytest.mark.parametrize(
    ("text", "interval", "phase"),
    [
        ("24 hours", timedelta(days=1), timedelta(0)),
        ("15 minutes", timedelta(minutes=15), timedelta(0)),
        ("1 hour 30 minutes", timedelta(minutes=90), timedelta(0)),
        (" 2 WEEKS ", timedelta(days=14), timedelta(0)),
        ("1 second", timedelta(seconds=1), timedelta(0)),
        ("1 day offset 2 hours", timedelta(days=1), timedelta(hours=2)),
    ],
)
def test_an_interval_in_words(text: str, interval: timedelta, phase: timedelta) -> None:
    assert parse_spec(text) == Every(interval=interval, phase=phase)


@pytest.mark.parametrize(
    "wrong",
    [
        "0 seconds",
        "24 hours sharp",
        "1 day offset 1 day",
        "9999999999 weeks",
        timedelta(0),
        timedelta(seconds=1.5),
        timedelta(days=-1),
        timedelta(days=10_000),
    ],
)
def test_an_interval_that_cannot_be_honoured_is_refused(wrong: Any) -> None:
    with pytest.raises(UnsupportedOption) as caught:
        parse_spec(wrong)

    assert caught.value.hint


@given(st.integers(1, 10**8), st.integers(0, 10**8))
def test_an_intervals_text_reads_back_as_it(seconds: int, phase: int) -> None:
    every = Every(interval=timedelta(seconds=seconds), phase=timedelta(seconds=phase % seconds))

    assert Every.parse(every.text) == every


def test_once_is_an_instant_with_a_zone() -> None:
    once = parse_spec("2026-12-24T18:00:00+01:00")

    assert once == Once(datetime(2026, 12, 24, 17, tzinfo=UTC))
    with pytest.raises(UnsupportedOption, match="no time zone"):
        parse_spec("2026-12-24T18:00:00")
    with pytest.raises(UnsupportedOption, match="no time zone"):
        parse_spec(datetime(2026, 12, 24, 18))


@pytest.mark.parametrize("declared", ["0 1 * * *", "24 hours", "2026-12-24T18:00:00+00:00"])
def test_what_a_row_holds_reads_back(declared: str) -> None:
    spec = parse_spec(declared)

    assert kind_of(spec) in SpecKind
    assert read_spec(kind_of(spec), spec.text) == spec


@pytest.mark.parametrize("declared", ["often", "1.5 hours", 15, None])
def test_what_is_no_schedule_is_refused(declared: Any) -> None:
    with pytest.raises(UnsupportedOption) as caught:
        parse_spec(declared)

    assert repr(declared) in str(caught.value)


@pytest.mark.parametrize("name", ["Mars/Olympus", "", "../etc/passwd", "Europe", "/UTC"])
def test_a_zone_that_there_is_not(name: str) -> None:
    with pytest.raises(UnsupportedOption, match="There is no time zone"):
        zone_named(name)
