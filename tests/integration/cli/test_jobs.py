"""What `jobbridge jobs` and `explain` show of jobs with secrets, and with texts that a terminal would act on."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from jobbridge import Celery
from jobbridge.cli import explain, jobs
from jobbridge.cli.root import run
from jobbridge.core.masking.values import MASK
from jobbridge.settings import load_settings
from tests.job_events import EventsOf
from tests.parity.tasks import make_app

SECRET = "hunter2"
TITLE = "\x1b]0;mine\x07"  # would name the terminal's window
REVERSED = "\u202e"


@pytest.fixture
def failed(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A job that failed, by its id."""
    app: Celery = make_app(settings=load_settings({"DATABASE_URL": database_url}))
    for command in (explain, jobs):
        monkeypatch.setattr(command, "load_app", lambda name: app)
    job = EventsOf()
    for event in (
        job.submitted(
            type=f"mail{TITLE}{REVERSED}", metadata={"data": {"password": SECRET, "to": "[b]:bomb:"}}
        ),
        job.started(),
        job.failed(
            1, error=f"no answer of smtp://me:{SECRET}@mail {TITLE}", traceback=f"token={SECRET}{TITLE}"
        ),
    ):
        app.recorder.record(event)
    yield str(job.key.job_id)
    app.close()


@pytest.mark.parametrize("command", [["jobs", "show"], ["explain"], ["jobs", "watch"], ["jobs", "list"]])
def test_nothing_of_it_acts_on_a_terminal_or_is_secret(
    failed: str, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    run([*command, *([] if command[-1] == "list" else [failed])])

    told = capsys.readouterr().out
    assert not {"\x1b", "\x07", REVERSED} & set(told)
    assert SECRET not in told
    if command[-1] != "list":
        assert f"smtp://me:{MASK}@mail" in told
    if command[-1] == "show":
        assert "[b]:bomb:" in told


def test_a_program_is_given_what_is_in_the_row(failed: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["jobs", "show", failed, "--json"]) == 0

    assert json.loads(capsys.readouterr().out)["metadata"]["data"]["password"] == SECRET
