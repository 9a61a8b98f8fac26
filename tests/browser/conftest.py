"""A browser and a stage for the tests of this folder that act, and for those that look; each in one process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from playwright.sync_api import Browser

from jobbridge.core.access import Role
from jobbridge.core.keys import Engine, TenantId
from jobbridge.dev.postgres import PostgresServer
from tests.browser.books import Books, keep_books
from tests.browser.chromium import run_chromium
from tests.browser.stage import Stage, run_stage
from tests.browser.visitors import Visitor, visit

#: Who acts, and who looks: each has a browser and a stage, and as much to do as the other.
_ACTING = {"test_actions", "test_recurring", "test_live"}


def pytest_itemcollected(item: pytest.Item) -> None:
    side = "acting" if item.path.stem in _ACTING else "looking"
    item.add_marker(pytest.mark.xdist_group(f"browser-{side}"))


@pytest.fixture(scope="session")
def stage(
    postgres: PostgresServer,
    migrated_template: str,
    temporal_server: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Stage]:
    url = postgres.create_database("browser", template=migrated_template)
    with run_stage(url, temporal_server, tmp_path_factory.mktemp("browser")) as stage:
        yield stage


@pytest.fixture(scope="session")
def books(stage: Stage) -> Books:
    return keep_books(stage)


# Of the package, not of the session: Playwright leaves an event loop in this thread that would disturb other tests.
@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    with run_chromium() as browser:
        yield browser


Arrives = Callable[..., Visitor]


@pytest.fixture
def arrives(browser: Browser, stage: Stage) -> Iterator[Arrives]:
    """`arrives(Role.OPERATOR, ACME)`: somebody who has signed in, with a browser of their own."""
    with ExitStack() as leaving:

        def arrive(role: Role | None = Role.ADMIN, tenant: TenantId | None = None, **options: Any) -> Visitor:
            cookie = None if role is None else stage.cookie(role, tenant)
            return leaving.enter_context(visit(browser, stage, cookie, **options))

        yield arrive


@pytest.fixture(scope="package")
def _readers(browser: Browser, stage: Stage) -> Iterator[tuple[Visitor, Visitor]]:
    cookie = stage.cookie(Role.ADMIN)
    with (
        visit(browser, stage, cookie) as one,
        visit(browser, stage, cookie, java_script_enabled=False) as two,
    ):
        yield one, two


@pytest.fixture
def reader(_readers: tuple[Visitor, Visitor]) -> Iterator[Visitor]:
    """An admin whose window many tests share, one after another: for what changes nothing."""
    visitor = _readers[0]
    yield visitor
    complaints = list(visitor.complaints)
    visitor.complaints.clear()
    assert complaints == []


@pytest.fixture
def plain_reader(_readers: tuple[Visitor, Visitor]) -> Visitor:
    """The same person without JavaScript."""
    return _readers[1]


@pytest.fixture(params=list(Engine), ids=str)
def engine(request: pytest.FixtureRequest) -> Engine:
    return Engine(request.param)
