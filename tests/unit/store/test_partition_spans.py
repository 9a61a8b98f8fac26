"""An id says its time, and stretches of time follow each other without a gap."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from uuid import RFC_4122

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobbridge.store.partitions.spans import (
    AHEAD,
    Width,
    end_of,
    instant_of,
    lowest_id,
    start_of,
    stretches,
    time_ordered_id,
)

INSTANTS = st.datetimes(datetime(2020, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))
CHANCE = st.integers(0, 2**80 - 1)


@given(at=INSTANTS, chance=CHANCE)
def test_an_id_is_of_version_7_and_says_its_millisecond(at: datetime, chance: int) -> None:
    milliseconds = round(at.timestamp() * 1000)

    made = time_ordered_id(milliseconds, chance)

    assert (made.version, made.variant) == (7, RFC_4122)
    assert instant_of(made) == datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=milliseconds)


@given(first=CHANCE, second=CHANCE)
def test_all_chance_is_in_the_id(first: int, second: int) -> None:
    lost = 0b11 << 62 | 0xF << 74  # what version and variant take: six of 80 bits
    kept = ((1 << 62) - 1) | (0xFFF << 68)
    same = first & kept == second & kept
    assert lost
    assert (time_ordered_id(1, first) == time_ordered_id(1, second)) == same


@given(at=INSTANTS, width=st.sampled_from(Width), chance=CHANCE)
def test_the_ids_of_a_stretch_lie_between_its_bounds(at: datetime, width: Width, chance: int) -> None:
    made = time_ordered_id(int(at.timestamp() * 1000), chance)

    assert lowest_id(start_of(width, at)) <= made < lowest_id(end_of(width, at))


@given(now=INSTANTS, before=st.timedeltas(timedelta(0), timedelta(days=60)), width=st.sampled_from(Width))
def test_stretches_follow_each_other_and_go_beyond_now(
    now: datetime, before: timedelta, width: Width
) -> None:
    found = list(stretches(width, first=start_of(width, now - before), now=now))

    assert all(end == start for (_, end), (start, _) in pairwise(found))
    assert found[0][0] <= now - before
    assert sum(start > now for start, _ in found) == AHEAD[width]


def test_a_week_begins_on_monday_and_a_month_on_the_first() -> None:
    at = datetime(2026, 12, 31, 23, 59, tzinfo=UTC)

    assert start_of(Width.WEEK, at) == datetime(2026, 12, 28, tzinfo=UTC)
    assert end_of(Width.WEEK, at) == datetime(2027, 1, 4, tzinfo=UTC)
    assert start_of(Width.MONTH, at) == datetime(2026, 12, 1, tzinfo=UTC)
    assert end_of(Width.MONTH, at) == datetime(2027, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("width", Width)
def test_another_width_goes_on_where_the_one_before_ended(width: Width) -> None:
    now = datetime(2026, 12, 2, tzinfo=UTC)

    found = list(stretches(width, first=datetime(2026, 12, 3, tzinfo=UTC), now=now))

    assert found[0][0] == datetime(2026, 12, 3, tzinfo=UTC)
    assert found[0][1] == end_of(width, found[0][0])
