"""What the tests fork is what a user starts: it sees the same, ends the same, and outlives nobody."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.forked import Forked, fork_server, run_python
from tests.support import clean_environment, wait_until

#: All that a program can see of how it was started.
PROBE = """
import faulthandler, json, locale, os, resource, signal, subprocess, sys, threading, time, warnings
print(json.dumps({
    "arguments": sys.argv,
    "as typed": sys.orig_argv,
    "import path": sys.path,
    "folder": os.getcwd(),
    "environment": {name: value for name, value in os.environ.items() if name != "_"},
    "environment of C": sorted(
        subprocess.run("env -0", shell=True, capture_output=True, text=True, check=True).stdout.split("\\0")
    ),
    "flags": str(sys.flags),
    "-X": sys._xoptions,
    "main": [__name__, sorted(name for name in vars(sys.modules["__main__"]) if name.startswith("__"))],
    "signals": {str(number): str(signal.getsignal(number)) for number in sorted(signal.valid_signals())},
    "blocked signals": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
    "wakeup": signal.set_wakeup_fd(-1),
    "leads its session": os.getsid(0) == os.getpid() == os.getpgrp(),
    "files": sorted(int(name) for name in os.listdir("/proc/self/fd"))[:3],
    "number of files": len(os.listdir("/proc/self/fd")),
    "encodings": [sys.stdin.encoding, sys.stdout.encoding, sys.stderr.encoding, sys.getfilesystemencoding()],
    "written through": [sys.stdout.write_through, sys.stderr.write_through],
    "locale": locale.setlocale(locale.LC_ALL),
    "zone": time.strftime("%Z", time.localtime(0)),
    "threads": [threading.active_count(), len(os.listdir("/proc/self/task")), threading.current_thread().name],
    "fault handler": faulthandler.is_enabled(),
    "recursion": sys.getrecursionlimit(),
    "mask": os.umask(0),
    "limits": [resource.getrlimit(limit) for limit in (resource.RLIMIT_NOFILE, resource.RLIMIT_CORE)],
    "priority": os.getpriority(os.PRIO_PROCESS, 0),
    "warnings": [str(entry[:1]) for entry in warnings.filters],
    "excepthook": sys.excepthook is sys.__excepthook__,
    "given": sys.stdin.read(),
}))
"""


def by_a_fork(*argv: str, cwd: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    out, err = cwd / "out", cwd / "err"
    (cwd / "in").write_text("hello\n")
    with out.open("w") as output, err.open("w") as errors, (cwd / "in").open() as stdin:
        forked = Forked(argv, env=env, cwd=cwd, output=output, errors=errors, stdin=stdin)
        code = forked.wait(30)
    return subprocess.CompletedProcess(argv, code, out.read_text(), err.read_text())


def afresh(*argv: str, cwd: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *argv], env=env, cwd=cwd, input="hello\n", capture_output=True, text=True,
        start_new_session=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("how", ["-m", "-c"])
def test_a_forked_program_sees_what_a_new_process_sees(how: str, tmp_path: Path) -> None:
    (tmp_path / "probe.py").write_text(PROBE)
    env = clean_environment({"TZ": "America/St_Johns", "SHOP": "a b", "PYTHONPATH": "elsewhere"})
    argv = (how, "probe" if how == "-m" else PROBE, "one", "--two", "")

    seen: list[dict[str, Any]] = [
        json.loads(run(*argv, cwd=tmp_path, env=env).stdout) for run in (by_a_fork, afresh)
    ]

    assert seen[0] == seen[1]
    assert seen[0]["given"] == "hello\n"
    assert seen[0]["zone"] == "NST"


@pytest.mark.parametrize(
    ("program", "code"),
    [
        ("pass", 0),
        ("import sys; sys.exit(7)", 7),
        ("import sys; sys.exit('told')", 1),
        ("1 / 0", 1),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
        ("import os, signal; os.kill(os.getpid(), signal.SIGINT)", -signal.SIGINT),
        ("import atexit; atexit.register(print, 'last'); print('first')", 0),
        ("import threading, time; threading.Thread(target=print, args=['thread']).start()", 0),
    ],
)
def test_a_forked_program_ends_as_a_new_process_does(program: str, code: int, tmp_path: Path) -> None:
    forked, fresh = (run("-c", program, cwd=tmp_path, env=clean_environment()) for run in (by_a_fork, afresh))

    assert (forked.returncode, forked.stdout) == (fresh.returncode, fresh.stdout)
    assert forked.returncode == code
    assert forked.stderr.splitlines()[-1:] == fresh.stderr.splitlines()[-1:]


@pytest.mark.parametrize(
    ("name", "is_forked"), [("SHOP", True), ("PYTHONOPTIMIZE", False), ("C_BENCH_EVERY", False)]
)
def test_a_program_whose_imports_would_see_another_environment_is_a_new_process(
    name: str, is_forked: bool
) -> None:
    program = "import sys; print('celery' in sys.modules)"

    done = run_python(["-c", program], env=clean_environment({name: "2"}))

    assert (done.returncode, done.stdout) == (0, f"{is_forked}\n")


#: Forks a program that forks another one, and all three stay; two do not hear SIGTERM.
OWNER = """
import os, sys, time
from pathlib import Path
from tests.forked import Forked
with open("log", "w") as log:
    kept = Forked(["-c", sys.argv[1]], env=os.environ, output=log, grace=0.2)
time.sleep(600)
"""
STAYS = """
import os, signal, time
from pathlib import Path
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = os.fork()
Path("child" if child == 0 else "leader").write_text(str(os.getpid()))
time.sleep(600)
"""


@pytest.mark.parametrize("ends", ["owner", "run"])
def test_nothing_is_left_of_a_killed_owner_or_an_ended_run(ends: str, tmp_path: Path) -> None:
    with fork_server(clean_environment()), (tmp_path / "out").open("w") as output:
        owner = subprocess.Popen(
            [sys.executable, "-c", OWNER, STAYS], env=clean_environment(), cwd=tmp_path, stdout=output
        )
        try:
            pids = wait_until(lambda: _numbers(tmp_path / "leader", tmp_path / "child"))
            assert all(map(is_there, pids))
            if ends == "owner":
                owner.kill()
                wait_until(lambda: not any(map(is_there, pids)), timeout=10)
        finally:
            owner.kill()
            owner.wait()
    wait_until(lambda: not any(map(is_there, pids)), timeout=10)


def _numbers(*files: Path) -> list[int]:
    texts = [file.read_text() for file in files if file.exists()]
    return [int(text) for text in texts] if all(texts) and len(texts) == len(files) else []


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return b") Z " not in Path(f"/proc/{pid}/stat").read_bytes()
    except (ProcessLookupError, FileNotFoundError):
        return False
