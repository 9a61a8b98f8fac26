"""`jobbridge schedules`, as it is typed."""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jobbridge.app.schedules.declared import sync_declared
from jobbridge.cli.common import load_app
from jobbridge.cli.failures import REFUSED
from jobbridge.cli.root import run

SHOP = """
from jobbridge import Celery

app = Celery("NAME")
app.conf.beat_schedule = {"sweep": {"task": "sweep", "schedule": 3600}}

@app.task(name="sweep", shared=False)
def sweep(*args, **kwargs):
    pass
"""

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database_url: str) -> Iterator[str]:
    name = f"shop_{uuid.uuid4().hex}"
    (tmp_path / f"{name}.py").write_text(SHOP.replace("NAME", name))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("DATABASE_URL", database_url)
    yield name
    load_app(name).close()
    sys.modules.pop(name)


@pytest.fixture
def schedules(shop: str, capsys: pytest.CaptureFixture[str]) -> Command:
    def call(command: str, *arguments: str) -> tuple[int, str, str]:
        code = run(["schedules", command, *arguments, "-A", shop])
        out, err = capsys.readouterr()
        return code, out, err

    return call


def test_a_schedule_from_its_creation_to_its_end(schedules: Command) -> None:
    def as_json(command: str, *arguments: str) -> Any:
        code, out, err = schedules(command, *arguments, "--json")
        assert code == 0, err
        return json.loads(out)

    created = as_json(
        "create", "sweep", "*/15 * * * *", "--name", "often", "--data", '{"kwargs": {"deep": true}}'
    )
    assert (created["outcome"], created["name"]) == ("created", "often")
    assert "nobody" not in created["warning"]
    assert as_json("pause", "often", "--note", "too often")["state"] == "paused: too often"
    assert as_json("show", created["schedule_id"])["upcoming"] == []
    assert as_json("resume", "often")["state"] == "active"

    job_id = as_json("run", "often")["job_id"]
    made = as_json("backfill", "often", "--from", "2026-01-01T00:00:00Z", "--to", "2026-01-01T01:00:00Z")
    assert len(made["fires"]) == 5

    shown = as_json("show", "often", "-n", "3")
    assert [fire["trigger"] for fire in shown["history"]] == ["manual", "backfill", "backfill"]
    assert shown["history"][0]["job_id"] == job_id
    assert shown["kwargs"] == {"deep": True}
    assert len(shown["upcoming"]) == 5
    assert [row["name"] for row in as_json("list", "--task", "sweep")] == ["often"]
    assert as_json("delete", "often")["deleted"]
    assert as_json("list") == []


def test_what_is_told_to_people(schedules: Command) -> None:
    _, out, err = schedules("create", "sweep", "24 hours")
    assert "The schedule sweep is created; it fires next at " in out
    assert "Warning: No running celery worker serves the queue 'celery' and knows 'sweep'." in err
    schedules("run", "sweep")

    _, out, _ = schedules("list")
    assert "1 day" in out
    _, out, _ = schedules("show", "sweep")
    assert "overlap      skip" in out
    assert "enqueued" in out
    assert "Deleted the schedule sweep." in schedules("delete", "sweep")[1]
    assert "There are no such schedules." in schedules("list")[1]


def test_what_cannot_be_is_refused_with_what_to_do(schedules: Command, shop: str) -> None:
    code, _, err = schedules("show", "nothing")
    assert (code, "There is no schedule 'nothing'." in err, "Hint: List schedules" in err) == (
        REFUSED,
        True,
        True,
    )
    code, _, err = schedules("create", "sweep", "@reboot")
    assert (code, "'@' names are not known here" in err) == (REFUSED, True)

    sync_declared(load_app(shop))
    code, _, err = schedules("delete", "sweep")
    assert (code, "is declared in the code" in err, "pause the schedule" in err) == (REFUSED, True, True)
    assert schedules("pause", "sweep")[0] == 0
