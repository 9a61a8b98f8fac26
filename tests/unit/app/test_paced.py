"""Reports that come fast are written a few times, and the last of them always."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from jobbridge.app import paced
from jobbridge.app.paced import PROGRESS, STATE, PacedReports
from tests.support import wait_until


@pytest.fixture
def written() -> list[object]:
    return []


@pytest.fixture
def note(written: list[object]) -> Callable[[object], Callable[[], object]]:
    def of(report: object) -> Callable[[], object]:
        def write() -> object:
            written.append(report)
            return report

        return write

    return of


def test_of_many_reports_the_first_and_the_last_are_written(
    written: list[object], note: Callable[[object], Callable[[], object]]
) -> None:
    reports = PacedReports()
    for number in range(1000):
        reports.put("a", PROGRESS, note(number))

    wait_until(lambda: written[-1] == 999, timeout=5)
    assert written[0] == 0
    assert len(written) < 10


def test_who_reports_is_told_what_the_last_writing_gave(
    note: Callable[[object], Callable[[], object]],
) -> None:
    reports = PacedReports()

    assert [reports.put("a", PROGRESS, note(number)) for number in range(3)] == [0, 0, 0]
    reports.flush("a")
    assert reports.put("a", PROGRESS, note(3)) == 2


def test_a_report_of_another_kind_takes_no_ones_place_and_no_ones_turn(
    written: list[object], note: Callable[[object], Callable[[], object]]
) -> None:
    reports = PacedReports()
    for kind, report in (("A", 1), ("A", 2), ("B", 3), ("A", 4)):
        reports.put("a", STATE, note(report), kind=kind)
    reports.put("a", PROGRESS, note("other channel"))
    reports.put("b", STATE, note("other task"), kind="A")

    assert written == [1, 2, 3, 4, "other channel", "other task"]


def test_what_waits_is_written_with_the_end_or_never(
    written: list[object], note: Callable[[object], Callable[[], object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paced, "INTERVAL", 3600.0)
    reports = PacedReports()
    for task_id in ("a", "b"):
        reports.put(task_id, PROGRESS, note(f"{task_id} first"))
        reports.put(task_id, PROGRESS, note(f"{task_id} last"))

    reports.close("a", writes=True)
    reports.close("b", writes=False)

    assert written == ["a first", "b first", "a last"]
    wait_until(
        lambda: not [each for each in threading.enumerate() if isinstance(each, threading.Timer)], timeout=5
    )


def test_an_end_does_not_wait_for_ever_for_a_report_that_waits_for_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The timer's thread may wait for the row, which the end's own transaction holds."""
    monkeypatch.setattr(paced, "PATIENCE", 0.1)
    begun, ended = threading.Event(), threading.Event()

    def write() -> None:
        begun.set()
        assert ended.wait(10)

    reports = PacedReports()
    reports.put("a", PROGRESS, lambda: None)
    reports.put("a", PROGRESS, write)
    assert begun.wait(10)

    reports.close("a", writes=True)
    ended.set()
