"""Cases of a test that mostly wait, had beside each other: what is waited for is the same, and takes no processor.

A fixture of a module has all of them at once, each in a thread and a world of its own, and gives an `Outcomes`; each
case stays a test, which asks what came of it. Give the tests one `xdist_group`, else each process has all of them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Generic, TypeVar

import pytest

Case = TypeVar("Case", bound=Hashable)

#: Whoever migrates a database in such a thread holds it: what alembic knows of a migration is the whole process's.
MIGRATING = threading.Lock()


class Outcomes(Generic[Case]):
    """What came of each case."""

    def __init__(self, futures: Mapping[Case, Future[object]]) -> None:
        self._futures = futures

    def of(self, case: Case) -> None:
        """Pass or fail as that case did."""
        self._futures[case].result()


def had_beside_each_other(cases: Mapping[Case, Callable[[], object]]) -> Outcomes[Case]:
    """Have all of them at once; returns when the last one has ended, in whatever way."""
    with ThreadPoolExecutor(max(1, len(cases))) as each_alone:
        futures = {case: each_alone.submit(have) for case, have in cases.items()}
        wait(futures.values())
    return Outcomes(futures)


def chosen(request: pytest.FixtureRequest, *names: str) -> set[tuple[object, ...]]:
    """Give the values of these parameters that tests of this module have which this run was asked for."""
    calls = [
        item.callspec.params
        for item in request.session.items
        if item.path == request.path and hasattr(item, "callspec")
    ]
    return {tuple(params[name] for name in names) for params in calls if set(names) <= params.keys()}
