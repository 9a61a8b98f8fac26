"""The command `jobbridge`, and programs that stay, for tests of whole processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from jobbridge.dev.process import ManagedProcess
from tests.forked import run_python
from tests.support import clean_environment, wait_until

JOBBRIDGE = [sys.executable, "-m", "jobbridge.cli"]


def run_jobbridge(
    *arguments: str, cwd: Path, timeout: float = 60, **settings: str
) -> subprocess.CompletedProcess[str]:
    """Run it to its end, forked (tests/fork_server.py): what it imports costs more than what it does."""
    return run_python(
        ["-m", "jobbridge.cli", *arguments], cwd=cwd, env=clean_environment(settings), timeout=timeout
    )


def run_jobbridge_afresh(
    *arguments: str, cwd: Path, timeout: float = 60, **settings: str
) -> subprocess.CompletedProcess[str]:
    """Run it to its end as a new process, as a shell does."""
    return subprocess.run(
        [*JOBBRIDGE, *arguments], cwd=cwd, env=clean_environment(settings), stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=timeout, check=False,
    )  # fmt: skip


def start(
    argv: Sequence[str], *, cwd: Path, name: str = "dev", settings: Mapping[str, str] | None = None
) -> ManagedProcess:
    """Start a new process that stays. It leads a process group of its own, as under a terminal."""
    return ManagedProcess(
        name=name, argv=argv, log_path=cwd / f"{name}.log", cwd=cwd, env=clean_environment(settings),
        grace=timedelta(seconds=15),
    ).start()  # fmt: skip


def start_dev(*arguments: str, cwd: Path, **settings: str) -> ManagedProcess:
    """Start `jobbridge dev`, and wait until it says that it is ready."""
    process = start([*JOBBRIDGE, "dev", *arguments], cwd=cwd, settings=settings)
    try:
        wait_until_up(process)
    except BaseException:
        process.stop()
        raise
    return process


def wait_until_up(process: ManagedProcess) -> None:
    wait_until(lambda: "Ready. Ctrl-C" in process.log() or not process.is_running, timeout=60)
    assert process.is_running, process.log()


def servers_of(folder: Path) -> dict[str, Any]:
    """Read what a running `jobbridge dev` in this folder tells other commands."""
    found: dict[str, Any] = json.loads((folder / ".jobbridge" / "dev.json").read_text())
    return found


def descendants(pid: int) -> list[int]:
    """Name all processes that this one started, and they in turn."""
    table = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    children: dict[int, list[int]] = {}
    for line in table.splitlines():
        child, parent = map(int, line.split())
        children.setdefault(parent, []).append(child)
    found, waiting = [], [pid]
    while waiting:
        waiting += children.get(waiting.pop(), [])
        found = list(dict.fromkeys([*found, *waiting]))
    return found


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return b") Z " not in Path(f"/proc/{pid}/stat").read_bytes()  # a zombie is waited for by nobody here
    except (ProcessLookupError, FileNotFoundError):
        return False
