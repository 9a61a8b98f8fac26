"""Charts as the server draws them, and looks that many share."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import timedelta

import pytest

from jobbridge.dashboard.findings_cache import Look
from jobbridge.dashboard.views.charts import columns, lines, nice_length, nice_number
from jobbridge.dashboard.views.formats import per_cent, with_jobs
from jobbridge.dashboard.views.shell_commands import in_shell, with_commands
from jobbridge.diagnosis.findings import Check
from jobbridge.errors import DatabaseUnavailable

JOB = "0192f0c1-2345-7abc-8def-0123456789ab"


@pytest.mark.parametrize(
    ("value", "top"), [(0, 2), (1, 2), (3, 4), (5, 6), (7, 10), (11, 20), (50, 60), (61, 100), (7558, 10000)]
)
def test_an_axis_ends_at_a_number_that_reads_well(value: int, top: int) -> None:
    assert nice_number(value) == top


def test_an_axis_of_time_ends_at_a_length_that_reads_well() -> None:
    for value, top in ((0, 0.01), (0.3, 0.5), (61, 120), (86400, 86400), (3 * 86400, 4 * 86400)):
        assert nice_length(timedelta(seconds=value)) == timedelta(seconds=top)


def test_parts_of_a_column_are_on_top_of_each_other() -> None:
    chart = columns([("completed", [2, 0]), ("failed", [1, 0])])

    assert chart.ticks == ["4", "2", "0"]
    assert [(bar.kind, bar.y, bar.height) for bar in chart.bars] == [
        ("completed", 50, 50),
        ("failed", 25, 25),
    ]


def test_a_line_has_gaps_where_nothing_is_known() -> None:
    second = timedelta(seconds=1)

    [line] = lines([("p50", [second, None, second, second])]).lines

    assert line.path == "M12.50 0.00L12.50 0.00M62.50 0.00L62.50 0.00L87.50 0.00"


def test_texts_are_taken_apart() -> None:
    assert with_jobs(f"stuck: {JOB} (x)") == [("stuck: ", None), (JOB, JOB), (" (x)", None)]
    assert with_commands("Run `celery`.", None) == [("Run ", False), ("celery", True), (".", False)]
    assert [per_cent(value) for value in (100, 99.99, 98.25, 0)] == ["100 %", "99.9 %", "98.2 %", "0 %"]


def test_many_who_ask_at_once_share_a_look() -> None:
    begun, go_on, looks = threading.Event(), threading.Event(), []

    def check() -> Sequence[Check]:
        looks.append(1)
        begun.set()
        assert go_on.wait(10)
        return [Check(name="x", is_good=True, found="")]

    look = Look(check)
    assert look.soon(patience=0) is None
    assert begun.wait(10)
    assert look.is_under_way
    assert not look.is_due
    first = look.begin()
    assert look.begin() is first  # nobody looks beside it
    assert look.soon(patience=0) is None
    go_on.set()
    first.join()

    assert len(looks) == 1
    assert look.last is not None
    assert not look.is_due
    look.forget()
    assert look.is_due


def test_a_look_that_takes_long_rests_long() -> None:
    def check() -> Sequence[Check]:
        threading.Event().wait(0.05)
        return []

    look = Look(check, fresh=timedelta(0))

    report = look.soon()

    assert report is not None
    assert report.took >= timedelta(seconds=0.05)
    assert not look.is_due


def test_a_look_that_fails_is_a_finding(caplog: pytest.LogCaptureFixture) -> None:
    def fail(error: Exception) -> Sequence[Check]:
        raise error

    away = Look(lambda: fail(DatabaseUnavailable("It is away."))).soon()
    wrong = Look(lambda: fail(RuntimeError("password=hunter2"))).soon()

    assert away is not None
    assert wrong is not None
    assert [check.found for check in away.bad] == ["It is away."]
    assert [check.found for check in wrong.bad] == ["They could not be made: RuntimeError."]
    assert "dashboard.check_failed" in caplog.text


@pytest.mark.parametrize(
    ("command", "named"),
    [
        ("jobbridge jobs retry 7", "jobbridge jobs retry 7 -A shop"),
        ("celery -A APP worker -Q mail", "celery -A shop worker -Q mail"),
        ("jobbridge temporal-worker -A APP", "jobbridge temporal-worker -A shop"),
        ("jobbridge jobs show 7 -A other", "jobbridge jobs show 7 -A other"),
        ("jobbridge migrate", "jobbridge migrate"),
    ],
)
def test_a_command_names_the_app_where_it_has_to_know_it(command: str, named: str) -> None:
    assert in_shell(command, "shop") == named
    assert in_shell(command, None) == command
    assert with_commands(f"Run `{command}`", "shop")[1] == (named, True)
