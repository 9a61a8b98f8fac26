from __future__ import annotations

import json

import pytest

from jobbridge.cli.root import run


def test_migrate_says_what_it_did_and_does_nothing_twice(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", empty_database_url)

    assert run(["migrate"]) == 0
    first = capsys.readouterr().out
    assert run(["migrate", "--json"]) == 0
    second = json.loads(capsys.readouterr().out)

    assert "Migrated to" in first
    assert second["before"] == second["after"] != []
