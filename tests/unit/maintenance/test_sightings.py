from __future__ import annotations

from datetime import timedelta

from jobbridge.maintenance.sightings import Sightings


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_only_what_was_seen_in_each_look_for_long_enough_is_confirmed() -> None:
    clock = Clock()
    sightings = Sightings[str](apart=timedelta(seconds=15), clock=clock)

    assert sightings.confirm(["a", "b"]) == []
    clock.now += 14
    assert sightings.confirm(["a", "b"]) == []
    clock.now += 1
    assert sightings.confirm(["a", "b", "c"]) == ["a", "b"]


def test_who_was_not_seen_in_between_begins_anew() -> None:
    clock = Clock()
    sightings = Sightings[str](apart=timedelta(seconds=15), clock=clock)

    sightings.confirm(["a"])
    clock.now += 10
    sightings.confirm([])
    clock.now += 10
    assert sightings.confirm(["a"]) == []
    assert len(sightings) == 1
