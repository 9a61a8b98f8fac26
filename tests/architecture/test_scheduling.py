"""Tests that share something run in one process: else each process makes it anew, and nothing but the clock tells."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.conftest import HAVE_A_WORLD
from tests.forked import run_python
from tests.scheduling import LONGEST
from tests.support import REPOSITORY, clean_environment
from tests.took import told

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


@pytest.mark.parametrize("part", LONGEST)
def test_what_begins_first_is_there(part: str) -> None:
    worlds = [f"{folder}-world" for folder in HAVE_A_WORLD]
    files = [path for path in (REPOSITORY / "tests").rglob("test_*.py") if path != Path(__file__)]

    assert any(part.startswith(world) for world in worlds) or any(
        part in path.name or part in path.read_text() for path in files
    )


def test_the_slowest_tests_and_the_time_of_each_folder_are_told() -> None:
    seconds = Counter({"tests/a/test_x.py::test_one[1]": 2.0, "tests/a/test_y.py::test_two": 0.5})
    seconds["tests/b/test_z.py::test_three"] = 1.0

    assert told(seconds) == [
        "The 3 slowest of 3 tests, in seconds:",
        "     2.0  tests/a/test_x.py::test_one[1]",
        "     1.0  tests/b/test_z.py::test_three",
        "     0.5  tests/a/test_y.py::test_two",
        "By folder, in seconds of all processes (4 in all):",
        "     2.5  tests/a (2)",
        "     1.0  tests/b (1)",
    ]
