"""The data set and the statements against the migrated tables."""

import re

import psycopg
import pytest
from psycopg import sql

from jobbridge.errors import NotMigrated
from jobbridge.handlers import audit, documents, files, providers, tenants
from jobbridge.handlers.assets import inventory, outcomes
from jobbridge.handlers.buckets import reconciling as bucket_reconciling
from jobbridge.handlers.calendars import channels, health, subscriptions
from jobbridge.handlers.calendars import providers as calendar_providers
from jobbridge.handlers.cleanup import forms, keys
from jobbridge.handlers.credits import expiring, notices, notifying, reconciling
from jobbridge.handlers.dataset import TABLES, columns_of, import_dataset
from jobbridge.handlers.invoicing import accounts, invoices, outbox
from jobbridge.handlers.mailing import recipients
from tests.books import Books

STATEMENTS = {
    f"{module.__name__}.{name}": value
    for module in (
        accounts,
        audit,
        bucket_reconciling,
        calendar_providers,
        channels,
        documents,
        expiring,
        files,
        forms,
        health,
        inventory,
        invoices,
        keys,
        notices,
        notifying,
        outbox,
        outcomes,
        providers,
        recipients,
        reconciling,
        subscriptions,
        tenants,
    )
    for name, value in vars(module).items()
    if name.isupper() and isinstance(value, str) and "\n" in value
}


def _numbered(statement: str) -> str:
    names: list[str] = []

    def placeholder(match: re.Match[str]) -> str:
        if match[1] not in names:
            names.append(match[1])
        return f"${names.index(match[1]) + 1}"

    return re.sub(r"%\((\w+)\)s", placeholder, statement).replace("%%", "%")


def test_each_statement_fits_the_tables(database_url: str) -> None:
    assert len(STATEMENTS) > 20
    with psycopg.connect(database_url, autocommit=True) as connection:
        for number, (name, statement) in enumerate(STATEMENTS.items()):
            try:
                connection.execute(f"PREPARE statement_{number} AS {_numbered(statement)}".encode())
            except psycopg.Error as error:
                raise AssertionError(f"{name}: {error}") from error


def test_every_file_has_its_table_and_no_tenant() -> None:
    assert not [table for table in TABLES if "tenant" in columns_of(table)]


def test_a_second_import_changes_nothing(database_url: str) -> None:
    books = Books(database_url, "t1")
    books.bill("northwind")
    billed = "SELECT count(*) FROM psa.time_entries WHERE invoice_id IS NOT NULL"
    before = books.value(billed)

    with books.transaction() as connection:
        imported = import_dataset(connection, "t1")

    assert set(imported.values()) == {0}
    assert books.value(billed) == before > 0


def test_each_tenant_has_books_of_its_own(database_url: str) -> None:
    books = Books(database_url, "t1", "t2")

    for table in TABLES:
        query = sql.SQL("SELECT tenant, count(*) FROM {} GROUP BY tenant").format(
            sql.Identifier("psa", table)
        )
        with books.transaction() as connection:
            counts = dict(connection.execute(query).fetchall())
        assert counts["t1"] == counts["t2"] > 0


def test_an_import_leaves_nothing_behind_when_it_is_rolled_back(database_url: str) -> None:
    books = Books(database_url, "t1")
    with books.transaction() as connection, connection.transaction(force_rollback=True):
        import_dataset(connection, "t2")

    assert books.value("SELECT count(*) FROM psa.clients WHERE tenant = 't2'") == 0


def test_without_the_tables_the_error_says_to_migrate(empty_database_url: str) -> None:
    with (
        psycopg.connect(empty_database_url) as connection,
        pytest.raises(NotMigrated, match="psa") as caught,
    ):
        import_dataset(connection, "t1")
    assert "jobbridge migrate" in caught.value.hint
