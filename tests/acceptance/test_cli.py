"""The command line as a user calls it: whole processes, exit codes, what is said."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.acceptance.commands import run_jobbridge
from tests.conftest import StartWorker
from tests.support import CONTRACTED, clean_environment

SHOP = """
from pydantic import BaseModel
from jobbridge import Celery, JobContext, RetryPolicy, job

app = Celery("shop")

class Order(BaseModel):
    number: int

@job("receipt")
def receipt(ctx: JobContext, order: Order) -> dict:
    return {"order": order.number, "attempt": ctx.attempt}

@job("needs-tenant", tenant_required=True)
def needs_tenant(ctx: JobContext, data: dict) -> str:
    return ctx.tenant_id

@job("always-fails", retry=RetryPolicy(max_attempts=1))
def always_fails(ctx: JobContext, data: dict) -> None:
    raise ValueError("out of paper")

@app.task(name="add")
def add(x, y):
    return x + y
"""

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    (tmp_path / "shop.py").write_text(SHOP)
    return tmp_path


@pytest.fixture
def jobbridge(shop: Path) -> Run:
    """Call the command in a folder with `shop.py`."""

    def run(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        return run_jobbridge(*arguments, cwd=shop, **settings)

    return run


def jobs_in(database_url: str) -> list[Any]:
    with psycopg.connect(database_url) as connection:
        return connection.execute("SELECT type, status, runner_type FROM jobs").fetchall()


def messages_in(database_url: str) -> int:
    with psycopg.connect(database_url) as connection:
        row = connection.execute("SELECT count(*) FROM jobbridge_broker.messages").fetchone()
    assert row is not None
    return int(row[0])


def test_a_database_that_does_not_answer_is_named(jobbridge: Run) -> None:
    done = jobbridge("jobs", "list", DATABASE_URL="postgresql://nobody:secret@127.0.0.1:1/none")
    assert done.returncode == 4
    assert "127.0.0.1" in done.stderr
    assert "Hint:" in done.stderr
    assert "secret" not in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "command", [["jobs", "list"], ["enqueue", "-A", "shop", "receipt", "--data", '{"number": 1}']]
)
def test_a_database_that_is_not_migrated_is_an_error_that_says_so(
    jobbridge: Run, empty_database_url: str, command: list[str]
) -> None:
    done = jobbridge(*command, DATABASE_URL=empty_database_url)
    assert done.returncode == 3
    assert "jobbridge migrate" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_database_that_is_newer_than_this_release_is_refused(jobbridge: Run, database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute(CONTRACTED)
    done = jobbridge("enqueue", "-A", "shop", "receipt", "--data", '{"number": 1}', DATABASE_URL=database_url)
    assert done.returncode == 3
    assert "9999_later" in done.stderr
    assert "Upgrade" in done.stderr
    assert jobs_in(database_url) == []
    assert messages_in(database_url) == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["reciept", "--data", '{"number": 1}'], "Did you mean 'receipt'?"),
        (["receipt", "--data", '{"number": "many"}'], "number"),
        (["needs-tenant", "--data", "{}"], "needs a tenant"),
    ],
    ids=["unknown handler", "data that does not validate", "no tenant"],
)
def test_what_cannot_run_is_refused_and_nothing_is_enqueued(
    jobbridge: Run, database_url: str, arguments: list[str], said: str
) -> None:
    done = jobbridge("enqueue", "-A", "shop", *arguments, DATABASE_URL=database_url)
    assert done.returncode == 5, done.stderr
    assert said in done.stderr
    assert "Hint:" in done.stderr
    assert "Traceback" not in done.stderr
    assert jobs_in(database_url) == []
    assert messages_in(database_url) == 0


@pytest.mark.parametrize(("module", "said"), [("no_such_app", "no_such_app"), ("json", "No Celery app")])
def test_an_app_that_is_not_there_is_named(jobbridge: Run, module: str, said: str) -> None:
    done = jobbridge("jobs", "list", "-A", module)
    assert done.returncode == 3
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_an_app_of_plain_celery_is_told_what_to_change(jobbridge: Run, shop: Path) -> None:
    (shop / "plain.py").write_text("from celery import Celery\napp = Celery('plain')\n")
    done = jobbridge("jobs", "list", "-A", "plain")
    assert done.returncode == 3
    assert "from jobbridge import Celery" in done.stderr


def test_jobs_are_sent_listed_shown_and_cancelled(jobbridge: Run, database_url: str) -> None:
    settings = {"DATABASE_URL": database_url, "CELERY_APP": "shop"}
    tenant = str(uuid.uuid4())

    sent = jobbridge(
        "enqueue", "receipt", "--data", '{"number": 7}', "--tenant", tenant, "--json", **settings
    )
    job_id = json.loads(sent.stdout)["job_id"]
    listed = json.loads(jobbridge("jobs", "list", "--tenant", tenant, "--json", **settings).stdout)
    shown = jobbridge("jobs", "show", job_id, **settings)
    cancelled = jobbridge("jobs", "cancel", job_id, "--reason", "changed my mind", **settings)
    again = jobbridge("jobs", "cancel", job_id, **settings)

    assert sent.returncode == 0, sent.stderr
    assert [(row["job_id"], row["type"], row["status"]) for row in listed] == [(job_id, "receipt", "queued")]
    assert job_id in shown.stdout
    assert tenant in shown.stdout
    assert cancelled.returncode == 0, cancelled.stderr
    assert again.returncode == 5
    assert "cancelled already" in again.stderr
    assert jobs_in(database_url) == [("receipt", "cancelled", "celery")]


def test_a_job_that_is_not_there_is_named(jobbridge: Run, database_url: str) -> None:
    unknown = str(uuid.uuid4())
    done = jobbridge("jobs", "show", unknown, DATABASE_URL=database_url)
    assert done.returncode == 5
    assert unknown in done.stderr


def test_waiting_tells_the_result_and_a_failure_by_the_exit_code(
    jobbridge: Run, database_url: str, celery_worker: StartWorker, shop: Path
) -> None:
    settings = {"DATABASE_URL": database_url, "CELERY_APP": "shop"}
    celery_worker("shop", "-P", "threads", DATABASE_URL=database_url, PYTHONPATH=str(shop))

    good = jobbridge("enqueue", "receipt", "--data", '{"number": 7}', "--wait", "--json", **settings)
    plain = jobbridge("enqueue", "add", "--data", '{"args": [2, 3]}', "--wait", "--json", **settings)
    bad = jobbridge("enqueue", "always-fails", "--data", "{}", "--wait", **settings)
    listed = jobbridge("jobs", "list", "--status", "failed", "--json", **settings)
    (failed,) = json.loads(listed.stdout)
    again = jobbridge("jobs", "retry", failed["job_id"], **settings)
    watched = jobbridge("jobs", "watch", failed["job_id"], "--json", **settings)
    refused = jobbridge("jobs", "retry", json.loads(good.stdout)["job_id"], **settings)

    assert good.returncode == 0, good.stderr
    assert json.loads(good.stdout)["result"] == {"order": 7, "attempt": 1}
    assert json.loads(plain.stdout)["result"] == 5
    assert bad.returncode == 1
    assert "out of paper" in bad.stdout
    assert failed["type"] == "always-fails"
    assert again.returncode == 0, again.stderr
    assert watched.returncode == 1
    assert json.loads(watched.stdout.splitlines()[-1])["attempt"] == 2
    assert refused.returncode == 5
    assert "--new" in refused.stderr


def test_handlers_are_listed_with_what_was_declared(jobbridge: Run) -> None:
    done = jobbridge("handlers", "list", "-A", "shop", "--json")

    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert {"add", "always-fails", "needs-tenant", "receipt"} <= set(rows)
    assert rows["always-fails"]["max_attempts"] == 1
    assert rows["needs-tenant"]["tenant_required"] is True
    assert (rows["add"]["kind"], rows["receipt"]["timeout_seconds"]) == ("task", 300)
    assert "receipt" in jobbridge("handlers", "list", "-A", "shop").stdout


def test_doctor_shows_where_each_setting_came_from_and_hides_passwords(
    jobbridge: Run, database_url: str
) -> None:
    done = jobbridge("doctor", "-A", "shop", DATABASE_URL=database_url, EDITION="community")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "environment DATABASE_URL" in done.stdout
    assert "receipt" in done.stdout
    password = database_url.split(":")[2].split("@")[0]
    assert password not in done.stdout


def test_doctor_fails_when_something_is_wrong(jobbridge: Run, empty_database_url: str) -> None:
    done = jobbridge("doctor", "-A", "shop", DATABASE_URL=empty_database_url)
    assert done.returncode == 1
    assert "jobbridge migrate" in done.stdout


def test_what_waits_is_found_and_explained(jobbridge: Run, database_url: str) -> None:
    settings = {"DATABASE_URL": database_url, "CELERY_APP": "shop"}
    sent = jobbridge("enqueue", "receipt", "--data", '{"number": 7}', "--json", **settings)
    job_id = json.loads(sent.stdout)["job_id"]

    doctor = jobbridge("doctor", "--json", **settings)
    told = jobbridge("explain", job_id, **settings)
    as_json = jobbridge("explain", job_id, "--json", **settings)
    watched = jobbridge("jobs", "watch", job_id, "--timeout", "0.5", **settings)

    assert doctor.returncode == 1, doctor.stdout + doctor.stderr
    found = {check["name"]: check for check in json.loads(doctor.stdout)["checks"]}
    assert [name for name, check in found.items() if not check["is_good"]] == ["workers"]
    assert "1 receipt (celery) in the queue 'celery'" in found["workers"]["found"]
    assert told.returncode == 0, told.stderr
    assert "No worker of celery serves the queue 'celery'" in told.stdout
    assert "celery -A APP worker -Q celery" in told.stdout
    assert [reason["code"] for reason in json.loads(as_json.stdout)["reasons"]] == ["in_line", "no_worker"]
    assert watched.returncode == 5
    assert "queued" in watched.stdout
    assert "0.5 s" in watched.stderr


def test_celery_knows_the_brokers_scheme_without_an_app(database_url: str, shop: Path) -> None:
    # Celery loads the plugin by its entry point, which `python -m celery` of an installed jobbridge has.
    program = (
        "import jobbridge.cli.celery_plugin, sys; from celery.bin.celery import main; "
        "sys.argv[0] = 'celery'; sys.exit(main())"
    )
    broker = database_url.replace("postgresql://", "jobbridge+postgresql://")
    done = subprocess.run(
        [sys.executable, "-c", program, "-b", broker, "inspect", "ping", "--timeout", "1"],
        cwd=shop, env=clean_environment(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "No nodes replied" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
