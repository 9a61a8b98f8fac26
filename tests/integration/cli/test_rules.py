"""`jobbridge rules`, as it is typed."""

from __future__ import annotations

import json

import pytest

from jobbridge.cli.failures import REFUSED
from jobbridge.cli.root import run


@pytest.fixture(autouse=True)
def _database(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)


def test_a_rule_is_set_listed_and_removed(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        run(["rules", "set", "concurrency", "mail", "16", "--per", "queue", "--fair", "--weight", "acme=3"])
        == 0
    )
    assert "'concurrency per queue of mail' allows 16 at once" in capsys.readouterr().out
    assert run(["rules", "set", "rate_limit", "sync", "10/m", "--per", "tenant", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["period_seconds"] == 60

    assert run(["rules", "list", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [(each["name"], each["weights"]) for each in told["set"]] == [
        ("concurrency per queue of mail", {"acme": 3}),
        ("rate_limit per tenant of sync", {}),
    ]
    assert [each["rule"] for each in told["limits"]] == ["concurrency queue mail"]
    assert run(["rules", "list"]) == 0
    assert "16 at once" in capsys.readouterr().out

    assert run(["rules", "remove", "concurrency", "mail", "--per", "queue"]) == 0
    assert run(["rules", "remove", "concurrency", "mail", "--per", "queue"]) == 0
    assert "No such rule was set." in capsys.readouterr().out


def test_what_is_no_rule_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["rules", "set", "rate_limit", "sync", "fast"]) == REFUSED
    assert "rate_limit is 'fast'" in capsys.readouterr().err
    assert run(["rules", "set", "concurrency", "sync", "3", "--weight", "acme=2"]) == REFUSED
    assert "weights" in capsys.readouterr().err
