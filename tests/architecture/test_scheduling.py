"""Tests that share something run in one process: else each process makes it anew, and nothing but the clock tells."""

from __future__ import annotations

from pathlib import Path

from tests.forked import run_python
from tests.support import clean_environment

CONFTEST = """
from contextlib import ExitStack
from tests.scheduling import Scheduling

def pytest_configure(config):
    stack = ExitStack()
    config.add_cleanup(stack.close)
    config.pluginmanager.register(Scheduling(stack))
"""
MARKED = """
import os
from pathlib import Path
import pytest

@pytest.mark.xdist_group("world")
@pytest.mark.parametrize("number", range(8))
def test_of_the_world(number):
    Path("world", os.environ["PYTEST_XDIST_WORKER"]).touch()
"""
SHARING = """
import os
from pathlib import Path
import pytest

@pytest.fixture(scope="module")
def table():
    Path("table", os.environ["PYTEST_XDIST_WORKER"]).touch()

@pytest.mark.parametrize("number", range(8))
def test_of_the_table(number, table):
    pass
"""


def test_what_is_shared_is_made_once_in_a_run_of_several_processes(tmp_path: Path) -> None:
    for name, text in (("conftest", CONFTEST), ("test_marked", MARKED), ("test_sharing", SHARING)):
        (tmp_path / f"{name}.py").write_text(text)
    for name in ("world", "table"):
        (tmp_path / name).mkdir()

    done = run_python(
        ["-m", "pytest", "-q", "-n", "2", "--rootdir", ".", "-c", "/dev/null", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        env=clean_environment(),
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "16 passed" in done.stdout
    [world], [table] = (list((tmp_path / name).iterdir()) for name in ("world", "table"))
    assert {world.name, table.name} == {"gw0", "gw1"}
