"""Books of the tenants that a module names as `TENANTS`: copied, since to import them costs more than most tests do."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import psycopg
import pytest

from jobbridge.dev.postgres import PostgresServer
from tests.books import Books
from tests.conftest import fresh_database

Template = Callable[..., str]


@pytest.fixture(scope="session")
def _template_of(postgres: PostgresServer, migrated_template: str) -> Template:
    @functools.cache
    def template_of(*tenants: str) -> str:
        name = "_".join(("template_books", *tenants))
        Books(postgres.create_database(name, template=migrated_template), *tenants)
        return name

    return template_of


@pytest.fixture
def books(
    request: pytest.FixtureRequest,
    postgres: PostgresServer,
    _administrator: psycopg.Connection,
    _template_of: Template,
) -> Iterator[Books]:
    tenants = request.module.TENANTS
    with fresh_database(_administrator, template=_template_of(*tenants)) as name:
        yield Books(postgres.url(name), *tenants, are_imported=True)
