"""Where there is no browser, the tests that need one say what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.browser.chromium import VARIABLE, NoChromium, find_chromium


def test_without_chromium_the_command_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv(VARIABLE, raising=False)

    with pytest.raises(NoChromium, match=r"apt-get install chromium.*JOBBRIDGE_CHROMIUM="):
        find_chromium(playwrights_own=str(tmp_path / "none"))


def test_one_that_is_named_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = tmp_path / "my-chromium"
    mine.write_text("#!/bin/sh\n")
    mine.chmod(0o755)
    monkeypatch.setenv(VARIABLE, str(mine))

    assert find_chromium(playwrights_own="/nowhere") == str(mine)
