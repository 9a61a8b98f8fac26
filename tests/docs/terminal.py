"""A shell in which a page's commands are typed: what stays (a worker, a dashboard) stays until the page ends."""

from __future__ import annotations

import itertools
import os
import re
import shlex
import string
import subprocess
import sys
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

from jobbridge.dev.process import ManagedProcess, stop_together
from tests.acceptance.commands import start
from tests.forked import run_python, start_python
from tests.support import REPOSITORY, clean_environment, wait_until

#: What a command that stays says when it is ready.
STAYING = {
    r"celery .*\bworker\b": " ready.",
    r"celery .*\bbeat\b": "is starting.",
    r"jobbridge temporal-worker\b": " ready.",
    r"jobbridge maintain\b": "is ready",
    r"jobbridge dashboard\b": "http://",
    r"jobbridge codec-server\b": "http://",
    r"jobbridge dev\b": "Ready. Ctrl-C",
    r"uvicorn\b": "Uvicorn running on",
}

#: Programs whose imports cost more than what they do: forked, if a shell has nothing to do for their command.
_MODULES = {"jobbridge": "jobbridge.cli", "celery": "celery"}
_FOR_A_SHELL = re.compile(r"""[$`|&;<>(){}*?~\\\n#]""")
_QUOTED = re.compile(r"'[^']*'")

#: Not run, and why: what they make is there already.
GIVEN = {
    r"python3 -m venv": "the environment of these tests stands in its place",
    r"\. \.venv/bin/activate": "likewise",
    r"jobbridge migrate --distribute": "needs Citus",
    r"pip install": "the packages are installed; CI's step `wheel` installs ours into an empty environment",
    r"docker compose": "tests/architecture/test_compose.py looks at the file; there is no container engine here",
}


def in_its_place(text: str, instead: Mapping[str, str]) -> str:
    for printed, other in instead.items():
        text = text.replace(printed, other)
    return text


def _python_of(command: str, settings: Mapping[str, str]) -> list[str] | None:
    """Give what follows `python` for a command of ours that needs no shell, but for variables of `settings`."""
    if "'" not in command:
        command = string.Template(command).safe_substitute(settings)
    if _FOR_A_SHELL.search(_QUOTED.sub("", command)):
        return None
    program, *arguments = shlex.split(command) or [""]
    if program not in _MODULES:
        return None
    return ["-m", _MODULES[program], *arguments]


class Terminal:
    """Runs commands in a folder.

    Args:
        folder: Where they are run; programs of the pages are files in it.
        settings: Environment variables.
        instead: Text of the pages → what stands for it here (an address, an id).
    """

    def __init__(self, folder: Path, settings: Mapping[str, str], instead: Mapping[str, str]) -> None:
        self._folder = folder
        self._instead = dict(instead)
        self._numbers = itertools.count()
        self._staying: dict[str, ManagedProcess] = {}
        programs = folder / "bin"
        programs.mkdir()
        for name, module in {**_MODULES, "uvicorn": "uvicorn"}.items():
            self._program(programs / name, f'exec "{sys.executable}" -m {module} "$@"')
        self._program(programs / "temporal", f'exec "{Path(sys.executable).with_name("temporal")}" "$@"')
        self._program(programs / "python", f'exec "{sys.executable}" "$@"')
        self._settings = {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PYTHONPATH": str(REPOSITORY),
            **settings,
        }
        #: What the commands printed, in their order.
        self.printed: list[str] = []

    @staticmethod
    def _program(path: Path, line: str) -> None:
        path.write_text(f"#!/bin/sh\n{line}\n")
        path.chmod(0o755)

    def type(self, command: str) -> None:
        """Run one command line.

        Raises:
            AssertionError: It failed, or a command that stays did not get ready; with what it printed.
        """
        command = in_its_place(command, self._instead)
        if any(re.match(pattern, command) for pattern in GIVEN):
            return
        if exported := re.match(r"export (.*)", command):
            self._export(exported[1])
        elif command.startswith("make "):
            self._run(f"make -n -C {shlex.quote(str(REPOSITORY))} {command.removeprefix('make ')}")
        elif ready := next((sign for pattern, sign in STAYING.items() if re.match(pattern, command)), None):
            self._stay(command, ready)
        else:
            self._run(command)

    def _export(self, assignments: str) -> None:
        for name in re.findall(r"(?:^|\s)([A-Z][A-Z_]*)=", assignments):
            self._run(f'export {assignments}; printf %s "${name}"')
            self._settings[name] = self.printed.pop()

    def _run(self, command: str) -> None:
        environment = clean_environment(self._settings)
        if (argv := _python_of(command, self._settings)) is not None:
            done = run_python(argv, cwd=self._folder, env=environment, timeout=90)
        else:
            done = subprocess.run(
                ["bash", "-c", command], cwd=self._folder, env=environment,
                stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=90, check=False,
            )  # fmt: skip
        assert done.returncode == 0, f"$ {command}\n{done.stdout}{done.stderr}"
        self.printed.append(done.stdout)

    def _stay(self, command: str, ready: str) -> None:
        if command in self._staying:  # ended with Ctrl-C, and called again
            self._staying.pop(command).stop()
        called = command + (" -l INFO" if "worker" in command else "")  # which says `ready`
        name, environment = f"stays-{next(self._numbers)}", clean_environment(self._settings)
        argv = _python_of(called, self._settings)
        if argv is not None and not command.startswith("jobbridge dev"):
            log, grace = self._folder / f"{name}.log", timedelta(seconds=15)
            process = start_python(
                argv, name=name, log_path=log, env=environment, cwd=self._folder, grace=grace
            )
        else:
            process = start(
                ["bash", "-c", f"exec {called}"], cwd=self._folder, name=name, settings=self._settings
            )
        self._staying[command] = process
        wait_until(lambda: ready in process.log() or not process.is_running, timeout=60)
        assert process.is_running, f"$ {command}\n{process.log()}"

    def close(self) -> None:
        """Have what stays end, as Ctrl-C or an orchestrator does."""
        stop_together(list(self._staying.values()))
