"""What a run's time was spent on: its slowest tests, and the time of each folder, so that growth is seen.

Told where CI is set, as .ci/run does; and kept in `build/ci/took.txt`, which .ci/run shows at its end.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

_SLOWEST = 10


class Took:
    """The plugin, in the process that hears of all tests."""

    def __init__(self, repository: Path) -> None:
        self._kept = repository / "build" / "ci" / "took.txt"
        self._seconds: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._seconds[report.nodeid] += report.duration

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if not self._seconds or "CI" not in os.environ:
            return
        lines = told(self._seconds)
        terminalreporter.section("time of the tests")
        for line in lines:
            terminalreporter.write_line(line)
        self._kept.parent.mkdir(parents=True, exist_ok=True)
        self._kept.write_text("\n".join(lines) + "\n")


def told(seconds: Counter[str]) -> list[str]:
    """Tell of seconds by the tests' ids: the slowest, and the sums of folders, each with its number of tests."""
    folders: Counter[str] = Counter()
    numbers: Counter[str] = Counter()
    for test, took in seconds.items():
        folder = str(PurePosixPath(test.partition("::")[0]).parent)
        folders[folder] += took
        numbers[folder] += 1
    return [
        f"The {min(_SLOWEST, len(seconds))} slowest of {len(seconds)} tests, in seconds:",
        *(f"{took:8.1f}  {test}" for test, took in seconds.most_common(_SLOWEST)),
        f"By folder, in seconds of all processes ({sum(folders.values()):.0f} in all):",
        *(f"{took:8.1f}  {folder} ({numbers[folder]})" for folder, took in folders.most_common()),
    ]
