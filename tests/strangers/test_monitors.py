"""Flower and celery-exporter, with and without the app's code, and kombu alone, beside workers of both engines."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError

import pytest

from jobbridge.dev.process import ManagedProcess, free_port
from tests.parity.conftest import World
from tests.support import REPOSITORY, clean_environment, wait_until

TIMEOUT = 60
#: `make monitors` makes it.
PYTHON = REPOSITORY / "build" / "monitors" / "bin" / "python"
pytestmark = pytest.mark.long


@contextmanager
def served(argv: list[str], port: int, path: str, folder: Path, **settings: str) -> Iterator[str]:
    """Run a program that serves HTTP until the block ends; give its address."""
    assert PYTHON.exists(), "There are no monitors: run `make setup`"
    address = f"http://127.0.0.1:{port}"
    process = ManagedProcess(
        name=argv[0], argv=[str(PYTHON), *argv], log_path=folder / "log", env=clean_environment(settings)
    ).start()
    try:

        def answers() -> bool:
            assert process.is_running, process.tail(40)
            try:
                return bool(ask(address + path) or True)
            except URLError:
                return False

        wait_until(answers, timeout=TIMEOUT, message="it answers")
        yield address
    finally:
        process.kill()
        print(process.log())


def ask(url: str, values: Any = None) -> str:
    body = None if values is None else json.dumps(values).encode()
    with urllib.request.urlopen(url, data=body, timeout=10) as answer:
        return str(answer.read().decode())


@pytest.mark.parametrize("by", ["app", "broker"])
def test_flower(world: World, tmp_path: Path, by: str) -> None:
    port = free_port()
    broker = f"jobbridge+{world.database_url}"
    which = ["-A", "tests.parity.app"] if by == "app" else ["--broker", broker]
    argv = ["-m", "celery", *which, "flower", f"--port={port}", "--address=127.0.0.1"]
    settings = {**(world.environment if by == "app" else {}), "FLOWER_UNAUTHENTICATED_API": "true"}

    with served(argv, port, "/healthcheck", tmp_path, **settings) as flower:

        def has_worker() -> bool:
            workers = json.loads(ask(f"{flower}/api/workers?refresh=1"))
            return any("parity.echo" in each.get("registered", ()) for each in workers.values())

        wait_until(has_worker, timeout=TIMEOUT)
        result = world.task("echo").delay("seen")

        def is_told() -> bool:
            told = json.loads(ask(f"{flower}/api/tasks?limit=50")).get(result.id)
            return told is not None and told["state"] == "SUCCESS" and told["name"] == "parity.echo"

        wait_until(is_told, timeout=TIMEOUT)
        with pytest.raises(HTTPError, match="404"):  # of RabbitMQ and Redis alone
            ask(f"{flower}/api/queues/length")
        if by == "app":
            sent = json.loads(ask(f"{flower}/api/task/async-apply/parity.echo", {"args": ["by Flower"]}))
            assert world.app.AsyncResult(sent["task-id"]).get(timeout=TIMEOUT) == "by Flower"
            world.wait_for_status(sent["task-id"], "completed")


def test_celery_exporter(world: World, tmp_path: Path) -> None:
    port = free_port()
    url = f"jobbridge+{world.database_url}"
    # Its command is a file of its repository that its package does not have.
    program = "import sys; sys.argv[0] = 'celery-exporter'; from src.cli import cli; cli()"
    argv = ["-c", program, f"--broker-url={url}", f"--port={port}", "--host=127.0.0.1"]

    with served(argv, port, "/health", tmp_path) as exporter:

        def counted(name: str) -> bool:
            lines = ask(f"{exporter}/metrics").splitlines()
            mine = [line for line in lines if line.startswith(name) and 'name="parity.echo"' in line]
            return any(float(line.rpartition(" ")[2]) > 0 for line in mine)

        def is_counted() -> bool:
            world.task("echo").delay("counted")
            return counted("celery_task_succeeded_total") and counted("celery_task_runtime_count")

        wait_until(is_counted, timeout=TIMEOUT, every=0.5)
        assert "celery_worker_up{" in ask(f"{exporter}/metrics")


_KOMBU_ALONE = """
import sys
from kombu import Connection
assert "jobbridge" not in sys.modules
with Connection(sys.argv[1]) as connection:
    queue = connection.SimpleQueue("beside")
    queue.put({"a": 1})
    length = queue.queue.queue_declare(passive=True).message_count
    message = queue.get(timeout=10)
    message.ack()
    queue.close()
print(length, message.payload)
"""

_CELERY_ALONE = """
import sys
from celery import Celery
app = Celery(broker=sys.argv[1])
(stats,) = app.control.inspect(timeout=20, limit=1).stats().values()
print(stats["pool"]["max-concurrency"])
"""


@pytest.mark.parametrize(("program", "said"), [(_KOMBU_ALONE, "1 {'a': 1}"), (_CELERY_ALONE, "2")])
def test_a_process_that_knows_nothing_of_jobbridge(world: World, program: str, said: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", program, f"jobbridge+{world.database_url}"],
        env=dict(os.environ), capture_output=True, text=True, timeout=TIMEOUT, check=False,
    )  # fmt: skip

    assert done.stdout.strip() == said, done.stderr
