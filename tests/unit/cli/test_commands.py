"""The command line where it needs no server, in this process: what is refused before anything is opened."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from jobbridge import errors
from jobbridge.broker.errors import BrokerNotMigrated, PublishFailed
from jobbridge.cli.failures import exit_code, report
from jobbridge.cli.root import run
from jobbridge.dev.process import DevServerError


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # no .env and no running `jobbridge dev` there


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    told = capsys.readouterr().out
    for command in (
        "demo",
        "dev",
        "doctor",
        "enqueue",
        "explain",
        "handlers",
        "jobs",
        "migrate",
        "temporal-worker",
    ):
        assert command in told


@pytest.mark.parametrize(
    "command", ["demo", "dev", "doctor", "enqueue", "explain", "handlers", "jobs", "migrate"]
)
def test_each_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([command, "--help"]) == 0
    assert "Usage: jobbridge" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["no-such-command"], "no-such-command"),
        (["jobs", "list", "--nonsense"], "--nonsense"),
        (["jobs", "list", "--status", "done"], "completed"),
        (["enqueue", "receipt", "--data", "{number: 1}"], "not JSON"),
        (["enqueue", "receipt", "--run-at", "tomorrow"], "no instant"),
        (["enqueue", "receipt", "--run-at", "2026-01-01T10:00:00"], "no time zone"),
        (["enqueue", "receipt", "--engine", "kafka"], "kafka"),
        (["enqueue", "receipt", "--data", "@no-such-file"], "no-such-file"),
        (["dev", "--postgres-port", "99999"], "65535"),
    ],
)
def test_a_command_that_is_written_wrongly_says_where(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run(arguments)
    told = capsys.readouterr().err
    assert code == 2
    assert said in told
    assert "Traceback" not in told


def test_without_a_database_it_says_what_to_set(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["migrate"]) == 3
    told = capsys.readouterr().err
    assert "No database is configured." in told
    assert "DATABASE_URL" in told


def test_a_setting_that_does_not_fit_is_named_with_its_source(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("JOB_RUNNER_TYPE", "kafka")
    assert run(["migrate"]) == 3
    told = capsys.readouterr().err
    assert "JOB_RUNNER_TYPE" in told
    assert "kafka" in told
    assert "environment" in told


def test_a_database_of_another_kind_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", "mysql://root@localhost/shop")
    assert run(["migrate"]) == 3
    assert "mysql" in capsys.readouterr().err


def test_what_jobbridge_dev_left_is_found_by_other_commands(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(".jobbridge").mkdir()
    servers = {"pid": os.getpid(), "DATABASE_URL": "postgresql://127.0.0.1:1/left-by-dev"}
    Path(".jobbridge/dev.json").write_text(json.dumps(servers))
    assert run(["migrate"]) == 4
    assert "left-by-dev" in capsys.readouterr().err


def test_what_a_killed_jobbridge_dev_left_is_not_believed(capsys: pytest.CaptureFixture[str]) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    Path(".jobbridge").mkdir()
    servers = {"pid": dead.pid, "DATABASE_URL": "postgresql://127.0.0.1:1/left-by-dev"}
    Path(".jobbridge/dev.json").write_text(json.dumps(servers))
    assert run(["migrate"]) == 3
    assert "No database is configured." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.ConfigurationError("x"), 3),
        (errors.NotMigrated("x"), 3),
        (errors.SchemaTooNew("x"), 3),
        (BrokerNotMigrated("x"), 3),
        (errors.DatabaseUnavailable("x"), 4),
        (errors.EngineUnavailable("x"), 4),
        (PublishFailed("x"), 4),
        (DevServerError("x"), 4),
        (errors.UnknownHandler.named("x"), 5),
        (errors.JobNotFound.with_id("x"), 5),
        (errors.TenantRequired.by("x"), 5),
        (errors.InvalidJobData.of("x", "y"), 5),
    ],
)
def test_each_error_has_its_exit_code(error: Exception, code: int) -> None:
    assert exit_code(error) == code


def test_a_hint_follows_the_error_and_is_not_said_twice(capsys: pytest.CaptureFixture[str]) -> None:
    report(errors.NotMigrated("No tables."), is_debug=False)
    report(BrokerNotMigrated("No queues."), is_debug=False)
    told = capsys.readouterr().err
    assert told.count("jobbridge migrate") == 2
    assert "Traceback" not in told


def test_a_traceback_is_shown_for_what_nobody_foresaw_and_when_asked_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert report(ZeroDivisionError("division by zero"), is_debug=False) == 1
    assert "ZeroDivisionError" in capsys.readouterr().err
    report(errors.JobNotFound.with_id("x"), is_debug=True)
    assert "JobNotFound" in capsys.readouterr().err


def test_a_usage_error_keeps_clicks_own_code() -> None:
    assert report(click.UsageError("no"), is_debug=False) == 2


def test_a_dashboard_without_its_packages_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)

    assert run(["dashboard"]) != 0

    told = capsys.readouterr().err
    assert "needs the package uvicorn, which is not installed" in told
    assert "pip install 'jobbridge[dashboard]'" in told


# -- where `-A` may stand


@pytest.mark.parametrize(
    "arguments",
    [
        ["handlers", "list", "-A", "shop_of_cli"],
        ["handlers", "-A", "shop_of_cli", "list"],
        ["-A", "shop_of_cli", "handlers", "list"],
        ["-A", "no_such_module", "handlers", "list", "--app", "shop_of_cli"],
    ],
)
@pytest.mark.parametrize("elsewhere", [None, "jobbridge"])
def test_the_app_is_named_before_the_command_or_behind_it(
    arguments: list[str],
    elsewhere: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _write_app(tmp_path, monkeypatch)
    if elsewhere is not None:
        monkeypatch.setenv("CELERY_APP", elsewhere)

    assert run(arguments) == 0

    assert "shop.sell" in capsys.readouterr().out


def test_the_app_of_celerys_own_option_is_taken(tmp_path: Path) -> None:
    (tmp_path / "shop_of_cli.py").write_text(_APP)
    celery = [sys.executable, "-m", "celery"]
    for arguments in (
        ["-A", "shop_of_cli", "jobbridge", "handlers", "list"],
        ["jobbridge", "-A", "shop_of_cli", "handlers", "list"],
    ):
        done = subprocess.run(
            [*celery, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
        )

        assert (done.returncode, "shop.sell" in done.stdout, "generate-invoice" in done.stdout) == (
            0, True, False,
        ), done.stderr  # fmt: skip


def test_a_wrong_option_is_named_under_celery_too(capsys: pytest.CaptureFixture[str]) -> None:
    import celery.bin.celery  # noqa: F401  # puts a `show` of its own in the place of click's

    assert run(["migrate", "-A", "shop_of_cli"]) == 2

    assert "No such option '-A'" in capsys.readouterr().err


_APP = """
from jobbridge import Celery
app = Celery("shop", broker="jobbridge+postgresql://u@127.0.0.1:1/x")
@app.task(name="shop.sell")
def sell(): ...
"""


def _write_app(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "shop_of_cli.py").write_text(_APP)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "shop_of_cli", raising=False)
