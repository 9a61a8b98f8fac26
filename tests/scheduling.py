"""Which process of pytest-xdist runs which tests, and when: those of one `xdist_group` in one, the longest first.

xdist has `--dist=loadgroup` for that, which does nothing with pytest 9.2: a process tells the name of a test's group at
the end of its id, and ids cannot be changed any more (xdist 3.8.0, `remote.py`; there was no newer one). Everything
was spread, and each process made what a group shares anew. Here each process writes the groups into a file
before it tells what it has collected; all write the same.
"""

from __future__ import annotations

import json
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

_INPUT = "groups"

#: Tests that start workers and servers, and wait for them: first, so that none of them is what the run ends with.
#: Of them, and of the others, first those that one process has to run.
_FIRST = (
    "tests/acceptance/",
    "tests/browser/",
    "tests/integration/temporal/",
    "integration/broker/test_workers",
    "tests/parity/",
    "tests/reports/",
    "store/test_plans",
)


#: What one process has for a minute or more, by group or test, the longest first: begun late, a run would end with it
#: alone. `.ci/run` tells at its end what is.
LONGEST = (
    "matrix-130",
    "parity-world-temporal",
    "postgres-away",
    "parity-world-celery",
    "test_budget",
    "amid_a_mixture",
    "there_and_back_with_twenty_kills",
    "test_twenty_kills",
    "matrix-40",
    "following",
    "test_upgrade",
    "test_soak",
    "test_idle_worker",
    "kill-points",
    "test_examples",
    "test_chord_cost",
    "temporal-world",
    "test_suspects",
    "million",
    "reports-world",
)


class GroupScheduling(LoadScopeScheduling):
    """What xdist calls a scope is a group here, or a test that is in none."""

    def __init__(self, config: pytest.Config, log: Any, groups: Path) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = (
            False  # the order of the collection, not the one with most tests first
        )
        self._path = groups
        self._groups: dict[str, str] = {}

    def schedule(self) -> None:
        if not self._groups:  # all have collected
            self._groups = json.loads(self._path.read_text())
        super().schedule()

    def _split_scope(self, nodeid: str) -> str:
        return self._groups.get(nodeid, nodeid)


class Scheduling:
    """The plugin, in the process that distributes and in those that run."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._path: Path | None = None

    def path(self) -> Path:
        if self._path is None:
            folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="jobbridge-test-groups-"))
            self._path = Path(folder) / "groups.json"
        return self._path

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        node.workerinput[_INPUT] = str(self.path())

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: Any) -> GroupScheduling | None:
        is_ours = config.getoption("dist") in {"load", "loadgroup"}  # the former is what `-n` alone means
        return GroupScheduling(config, log, self.path()) if is_ours else None

    @pytest.hookimpl(tryfirst=True)  # before xdist says that this process has collected
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        if _INPUT not in (told := getattr(session.config, "workerinput", {})):
            return
        path = Path(told[_INPUT])
        own = path.with_name(told["workerid"])
        own.write_text(
            json.dumps({item.nodeid: group for item in session.items if (group := group_of(item))})
        )
        own.rename(path)


def group_of(item: pytest.Item) -> str | None:
    """Name what has to run in one process with this test: its `xdist_group`, else its file if that has made something.

    A fixture of a module's scope would be made anew in each process that runs a test of the module.
    """
    if mark := item.get_closest_marker("xdist_group"):
        return str(mark.args[0])
    fixtures = getattr(
        item, "_fixtureinfo", None
    )  # there is no public way to ask which fixtures a test will use
    used = (each for found in fixtures.name2fixturedefs.values() for each in found) if fixtures else ()
    return str(item.path) if any(fixture.scope == "module" for fixture in used) else None


def take_first_what_is_long(items: list[pytest.Item]) -> None:
    """Put the tests in the order in which they are to begin."""

    def is_short(item: pytest.Item) -> bool:
        return item.get_closest_marker("long") is None and not any(part in item.nodeid for part in _FIRST)

    def place(item: pytest.Item) -> int:
        name = f"{group_of(item)} {item.nodeid}"
        return next((place for place, part in enumerate(LONGEST) if part in name), len(LONGEST))

    # Stable: still random within.
    items.sort(key=lambda item: (place(item), is_short(item), group_of(item) is None))
