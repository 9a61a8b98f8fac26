"""The recorder's tests once more, on a database that was the original's: there a tenant is a uuid."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql

from jobbridge import Celery
from jobbridge.dev.postgres import PostgresServer
from jobbridge.settings import load_settings
from jobbridge.store.jobs.batches import for_tenants_of
from jobbridge.store.schedules import fires
from jobbridge.store.schedules import mirrors as schedule_mirrors
from jobbridge.store.schedules import repository as schedules
from jobbridge.store.schema.migrate import migrate
from tests.integration.store.test_recorder import *  # noqa: F403
from tests.integration.store.test_statements import STATEMENTS, _numbered
from tests.originals import TENANT, create_originals

FURTHER = {
    f"{module.__name__}.{name}": statement
    for module in (schedules, fires, schedule_mirrors)
    for name, statement in vars(module).items()
    if name.isupper() and isinstance(statement, str) and "public." in statement
    if statement.lstrip().startswith(("SELECT", "WITH", "INSERT", "UPDATE", "DELETE"))
}


@pytest.fixture(scope="session")
def adopted_template(postgres: PostgresServer) -> str:
    url = postgres.create_database("template_adopted")
    create_originals(url)
    migrate(url)
    return "template_adopted"


@pytest.fixture
def database_url(postgres: PostgresServer, adopted_template: str) -> Iterator[str]:
    """URL of a fresh database that was the original's."""
    name = f"test_{uuid.uuid4().hex}"
    yield postgres.create_database(name, template=adopted_template)
    with psycopg.connect(postgres.url(), autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def test_every_statement_fits_tables_that_were_taken_over(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        for name, statement in (STATEMENTS | FURTHER).items():
            try:
                here = for_tenants_of(statement, "uuid")
                connection.execute(sql.SQL("PREPARE statement AS ") + sql.SQL(_numbered(here)))
            except psycopg.Error as error:
                raise AssertionError(f"{name}: {error}") from error
            connection.execute("DEALLOCATE statement")


def work() -> None:
    pass


def test_schedules_and_purging_work_where_a_tenant_is_a_uuid(database_url: str) -> None:
    app = Celery("adopted", settings=load_settings({"DATABASE_URL": database_url}))
    app.task(name="adopted.work")(work)
    app.schedules.create("adopted.work", "24 hours", tenant=str(TENANT))

    purged = app.purge_tenant(str(TENANT))

    app.close()
    assert (purged.schedules, purged.cancelled, purged.deleted["jobs"]) == (1, 40, 60)
    assert purged.deleted["job_details"] == 120


def test_jobs_are_sent_where_a_tenant_is_a_uuid(database_url: str) -> None:
    app = Celery("adopted", settings=load_settings({"DATABASE_URL": database_url}))
    task = app.task(name="adopted.work")(work)
    tenants = [str(uuid.uuid4()), str(uuid.uuid4())]
    sent = [task.apply_async(tenant=tenant).id for tenant in tenants * 2]
    with app.bulk():
        sent += [task.apply_async(tenant=tenant).id for tenant in tenants]

    with psycopg.connect(database_url) as connection:
        query = "SELECT tenant::text FROM jobs WHERE job_id = ANY(%s) ORDER BY created_at, tenant"
        found = [tenant for (tenant,) in connection.execute(query, [[uuid.UUID(each) for each in sent]])]
    app.close()
    assert sorted(found) == sorted(tenants * 3)
