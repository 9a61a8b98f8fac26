"""`jobbridge dev`: what it starts, what it says when something dies, and that it leaves nothing."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from jobbridge.dev.process import ManagedProcess
from jobbridge.dev.supervisor import POSTGRES_PORT
from jobbridge.dev.temporal import find_cli
from tests.acceptance.commands import (
    descendants,
    is_alive,
    run_jobbridge,
    servers_of,
    start_dev,
)
from tests.support import clean_environment, wait_until

SHOP = """
import time
from pydantic import BaseModel
from jobbridge import Celery, JobContext, job

app = Celery("shop")

class Order(BaseModel):
    number: int

@job("receipt")
def receipt(ctx: JobContext, order: Order) -> dict:
    return {"order": order.number}

@job("long")
def long(ctx: JobContext, data: dict) -> None:
    ctx.progress(1, 4, "a quarter")
    while True:
        ctx.check_cancelled()
        time.sleep(0.05)
"""
ANY_PORTS = [
    "--postgres-port",
    "0",
    "--temporal-port",
    "0",
    "--temporal-ui-port",
    "0",
    "--dashboard-port",
    "0",
]


@pytest.fixture
def shop(open_folder: Path) -> Path:
    (open_folder / "shop.py").write_text(SHOP)
    return open_folder


def press_ctrl_c(dev: ManagedProcess) -> int:
    """Send SIGINT to the process group as a terminal does; give its exit code, once all has ended in order."""
    os.killpg(dev.pid, signal.SIGINT)
    code = dev.wait(timedelta(seconds=60))
    assert "Everything has stopped." in dev.log()
    return code


def pid_of(dev: ManagedProcess, member: str) -> int:
    found = re.search(rf"^ {member} +(\d+) ", dev.log(), re.MULTILINE)
    assert found is not None, dev.log()
    return int(found.group(1))


def temporal_cli(address: str, *arguments: str) -> str:
    done = subprocess.run(
        [str(find_cli()), *arguments, "--address", address],
        env=clean_environment(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_temporals_own_cli_drives_the_contract_and_the_rows_agree(shop: Path) -> None:
    with start_dev("-A", "shop", *ANY_PORTS, cwd=shop) as dev:
        servers = servers_of(shop)
        address, database_url = servers["TEMPORAL_ADDRESS"], servers["DATABASE_URL"]
        assert address in dev.log()
        assert database_url in dev.log()

        finished = run_workflow(address, "receipt", {"number": 7})
        result = json.loads(
            temporal_cli(address, "workflow", "result", "--workflow-id", finished, "-o", "json")
        )
        cancelled = run_workflow(address, "long", {})
        wait_until(lambda: job_state(address, cancelled)["progress"] == 25, timeout=30)
        signal_cancel(address, cancelled)
        wait_until(lambda: row(database_url, cancelled)[1] == "cancelled", timeout=30)

        assert result["status"] == "COMPLETED"
        assert result["result"]["success"] is True
        assert result["result"]["result"] == {"order": 7}
        assert row(database_url, finished) == ("receipt", "completed", "temporal", finished, None)
        assert row(database_url, cancelled) == ("long", "cancelled", "temporal", cancelled, "asked for")

        listed = run_jobbridge("jobs", "list", "-A", "shop", "--json", cwd=shop)
        assert {job["job_id"] for job in json.loads(listed.stdout)} == {finished, cancelled}
        page = httpx.get(f"{dashboard_of(dev)}jobs/{finished}", headers={"accept": "text/html"}).text
        assert f"http://127.0.0.1:{ui_port_of(dev)}/namespaces/default/workflows/{finished}" in page
        with httpx.stream("GET", f"{dashboard_of(dev)}events", timeout=30) as open_tab:
            assert open_tab.status_code == 200
            assert press_ctrl_c(dev) == 0, dev.log()


def dashboard_of(dev: ManagedProcess) -> str:
    [address] = re.findall(r"^Dashboard: (\S+)$", dev.log(), re.MULTILINE)
    return str(address)


def ui_port_of(dev: ManagedProcess) -> str:
    [port] = re.findall(r"web UI http://127\.0\.0\.1:(\d+)", dev.log())
    return str(port)


def run_workflow(address: str, name: str, data: dict[str, Any]) -> str:
    job_id = str(uuid.uuid4())
    document = {"jobId": job_id, "jobName": name, "tenantId": str(uuid.uuid4()), "data": data}
    temporal_cli(
        address, "workflow", "start", "--type", "genericJobWorkflow", "--task-queue", "alga-jobs",
        "--workflow-id", job_id, "--input", json.dumps(document),
    )  # fmt: skip
    return job_id


def job_state(address: str, workflow_id: str) -> dict[str, Any]:
    told = temporal_cli(
        address, "workflow", "query", "--workflow-id", workflow_id, "--type", "getJobState", "-o", "json"
    )
    [state] = json.loads(told)["queryResult"]
    assert isinstance(state, dict)
    return state


def signal_cancel(address: str, workflow_id: str) -> None:
    temporal_cli(
        address, "workflow", "signal", "--workflow-id", workflow_id, "--name", "cancelJob",
        "--input", '{"reason": "asked for", "cancelledBy": "me"}',
    )  # fmt: skip


def row(database_url: str, job_id: str) -> tuple[Any, ...]:
    with psycopg.connect(database_url) as connection:
        found = connection.execute(
            "SELECT type, status, runner_type, external_id, cancel_reason FROM jobs WHERE job_id = %s",
            [job_id],
        ).fetchone()
    assert found is not None
    return found


@pytest.fixture
def usual_port_is_taken() -> Iterator[None]:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with suppress(OSError):  # somebody else has it, which serves as well
            taken.bind(("127.0.0.1", POSTGRES_PORT))
            taken.listen()
        yield


@pytest.mark.usefixtures("usual_port_is_taken")
def test_a_taken_port_is_avoided_and_a_worker_that_dies_is_named_while_the_others_go_on(shop: Path) -> None:
    with start_dev("-A", "shop", "--no-temporal", cwd=shop) as dev:
        assert f"Port {POSTGRES_PORT} is taken: Postgres listens on " in dev.log()

        os.kill(pid_of(dev, "celery beat"), signal.SIGKILL)

        wait_until(lambda: "DIED: celery beat was ended by SIGKILL" in dev.log())
        sent = run_jobbridge(
            "enqueue", "-A", "shop", "receipt", "--data", '{"number": 1}', "--wait", cwd=shop
        )
        assert sent.returncode == 0, sent.stdout + sent.stderr
        assert press_ctrl_c(dev) == 1


def test_when_a_server_dies_everything_stops_and_says_which(shop: Path) -> None:
    with start_dev(
        "-A", "shop", "--no-temporal", "--postgres-port", "0", "--dashboard-port", "0", cwd=shop
    ) as dev:
        os.kill(pid_of(dev, "Postgres"), signal.SIGKILL)

        assert dev.wait(timedelta(seconds=20)) == 1
        assert "DIED: Postgres was ended by SIGKILL" in dev.log()
        assert not (shop / ".jobbridge" / "dev.json").exists()


def test_data_survives_and_nothing_is_left_running_when_it_is_killed(shop: Path) -> None:
    with start_dev(
        "-A", "shop", "--no-temporal", "--postgres-port", "0", "--dashboard-port", "0", cwd=shop
    ) as dev:
        sent = run_jobbridge(
            "enqueue", "-A", "shop", "receipt", "--data", '{"number": 1}', "--wait", cwd=shop
        )
        started = descendants(dev.pid)
        assert len(started) > 3

        dev.kill()

        wait_until(lambda: not any(is_alive(pid) for pid in started), timeout=15)
    with start_dev(
        "-A", "shop", "--no-temporal", "--postgres-port", "0", "--dashboard-port", "0", cwd=shop
    ) as dev:
        listed = run_jobbridge("jobs", "list", "-A", "shop", "--json", cwd=shop)
        assert sent.returncode == 0
        [job] = json.loads(listed.stdout)
        assert job["status"] == "completed"
        assert job["job_id"] in httpx.get(dashboard_of(dev) + "jobs", headers={"accept": "text/html"}).text
        dev.kill()


def test_a_port_that_was_asked_for_and_is_taken_is_named(shop: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run_jobbridge("dev", "--no-temporal", "--postgres-port", str(port), cwd=shop)
    assert done.returncode == 4
    assert f"Port {port}, which was asked for Postgres, is taken." in done.stderr
    assert "Traceback" not in done.stderr


def test_an_app_that_cannot_be_imported_stops_it_with_the_reason(shop: Path) -> None:
    (shop / "shop.py").write_text("import no_such_module\n")
    done = run_jobbridge(
        "dev", "-A", "shop", "--no-temporal", "--postgres-port", "0", "--dashboard-port", "0", cwd=shop
    )
    assert done.returncode == 4
    assert "no_such_module" in done.stderr
    assert not (shop / ".jobbridge" / "dev.json").exists()
