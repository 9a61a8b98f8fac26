"""Tables on a terminal: texts of others are shown as they are."""

from __future__ import annotations

import pytest

from jobbridge.cli.common import Markup, styled, tell_table
from jobbridge.core.status import JobStatus


def test_texts_are_shown_as_they_are_and_only_our_own_marks_mean_something(
    capsys: pytest.CaptureFixture[str],
) -> None:
    hint = "Install it with `pip install 'jobbridge[temporal]'`."
    rows = [(hint, "[/] of :warning:", styled(JobStatus.FAILED)), ("\x1b[2J", "", Markup("[bold]on[/]"))]

    tell_table(rows, "hint", "name", "status", empty="")

    told = capsys.readouterr().out
    assert hint in told
    assert "[/] of :warning:" in told
    assert "[bold]" not in told
    assert "failed" in told
    assert "\x1b" not in told
