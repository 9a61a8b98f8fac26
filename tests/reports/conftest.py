"""Worlds as those of tests/parity, with an app that has the settings of the reports."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from jobbridge.dev.postgres import PostgresServer
from tests.parity.conftest import World, engine, make_world, shared_engine
from tests.reports import tasks  # noqa: F401  (they are the app's)
from tests.reports.app import make_reports_app

__all__ = ["engine", "own_world", "shared_engine", "world"]


@pytest.fixture(scope="session")
def world(
    shared_engine: str,
    postgres: PostgresServer,
    migrated_template: str,
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> Iterator[World]:
    """A world with one worker (prefork) that many reports share."""
    folder = tmp_path_factory.mktemp(f"reports-{shared_engine}")
    url = postgres.create_database(f"reports_{shared_engine}", template=migrated_template)
    with ExitStack() as started:
        queue = f"reports-{uuid.uuid4().hex[:8]}"
        world = make_world(shared_engine, url, folder, queue, request, started, make=make_reports_app)
        world.module = "tests.reports.app"
        world.worker("-P", "prefork")
        yield world


@pytest.fixture
def own_world(
    engine: str,
    database_url: str,
    tmp_path: Path,
    task_queue: str,
    request: pytest.FixtureRequest,
) -> Iterator[World]:
    """A world of this report alone, with no worker yet."""
    with ExitStack() as started:
        world = make_world(
            engine, database_url, tmp_path, task_queue, request, started, make=make_reports_app
        )
        world.module = "tests.reports.app"
        yield world
