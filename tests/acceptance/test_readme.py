"""What the README prints works as printed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from tests.acceptance.commands import start, wait_until_up
from tests.support import REPOSITORY, clean_environment

README = (REPOSITORY / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


@pytest.fixture
def newcomer(open_folder: Path) -> Path:
    """A folder with the environment of these tests as `.venv`, and `jobbridge` on the PATH."""
    (open_folder / ".venv").symlink_to(sys.prefix)
    command = open_folder / "bin" / "jobbridge"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m jobbridge.cli "$@"\n')
    command.chmod(0o755)
    return open_folder


def test_the_example_works_as_printed(newcomer: Path) -> None:
    [program] = blocks("python")
    first_terminal, second_terminal = blocks("sh")
    (newcomer / "shop.py").write_text(program)
    path = {"PATH": f"{newcomer / 'bin'}:{os.environ['PATH']}"}

    with start(["bash", "-c", first_terminal], cwd=newcomer, settings=path) as dev:
        wait_until_up(dev)
        done = subprocess.run(
            ["bash", "-c", f"set -e; . .venv/bin/activate; {second_terminal}"],
            cwd=newcomer, env=clean_environment(path), capture_output=True, text=True, timeout=90, check=False,
        )  # fmt: skip
        os.killpg(dev.pid, signal.SIGINT)  # Ctrl-C
        dev.wait(timedelta(seconds=20))

    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{dev.log()}"
    assert '"total": "25.00"' in done.stdout
    assert '"total": "1.50"' in done.stdout
    assert "\n5\n" in done.stdout
    listed = re.findall(r"(send-receipt|shop\.add) +(celery|temporal) +completed", done.stdout)
    assert sorted(listed) == [
        ("send-receipt", "celery"),
        ("send-receipt", "temporal"),
        ("shop.add", "celery"),
    ]


def test_the_example_is_short() -> None:
    [program] = blocks("python")
    assert len([line for line in program.splitlines() if line.strip()]) <= 20
    assert README.count("\n") <= 80


def test_every_page_that_it_points_to_is_there() -> None:
    pages = [target for target in re.findall(r"\]\(([^)]+)\)", README) if not target.startswith("http")]
    assert pages
    assert [page for page in pages if not (REPOSITORY / page).is_file()] == []


@pytest.mark.parametrize("command", ["make demo", "make test"])
def test_the_two_commands_are_in_it_and_in_the_makefile(command: str) -> None:
    assert f"    {command}" in README
    target = command.removeprefix("make ")
    assert re.search(rf"^{target}:", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
