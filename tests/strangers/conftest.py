"""A world of each engine whose worker has tasks of other people's base classes, with Redis for their locks."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from jobbridge.dev.postgres import PostgresServer
from tests.parity.conftest import World, make_world, shared_engine
from tests.redis_server import run_redis
from tests.strangers.app import make_strangers_app

__all__ = ["shared_engine", "world"]


@pytest.fixture(scope="session")
def redis_url(server_folder: Path) -> Iterator[str]:
    with run_redis(server_folder) as url:
        yield url


@pytest.fixture(scope="session")
def world(
    shared_engine: str,
    redis_url: str,
    postgres: PostgresServer,
    migrated_template: str,
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> Iterator[World]:
    folder = tmp_path_factory.mktemp(f"strangers-{shared_engine}")
    url = postgres.create_database(f"strangers_{shared_engine}", template=migrated_template)
    with ExitStack() as started, pytest.MonkeyPatch.context() as patch:
        patch.setenv("STRANGERS_REDIS", redis_url)
        queue = f"strangers-{uuid.uuid4().hex[:8]}"
        world = make_world(shared_engine, url, folder, queue, request, started, make=make_strangers_app)
        world.module = "tests.strangers.app"
        world.environment["STRANGERS_REDIS"] = redis_url
        world.worker("-P", "prefork")
        yield world
