"""The soak's short form."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.soak.__main__ import soak


@pytest.fixture
def folder(server_folder: Path) -> Path:
    folder = server_folder / "soak"
    folder.mkdir(mode=0o755)
    return folder


@pytest.mark.long
@pytest.mark.timeout(700)
def test_everything_breaks_and_nothing_is_lost_or_run_again(folder: Path) -> None:
    verdict = soak(folder, seconds=40, jobs=4_000, seed=7)

    print(verdict.numbers)
    assert verdict.wrong == {}
