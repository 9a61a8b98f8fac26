"""The migrations make what the metadata says; every statement fits it; the hot ones follow their index."""

from __future__ import annotations

import re
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from psycopg import sql
from sqlalchemy import create_engine, text

from jobbridge.broker import publishing, session, tables, topology
from jobbridge.broker.admin import queue_admin
from jobbridge.broker.consume import claiming, isolation, prefetch, settling, sweeping, window
from jobbridge.broker.session import SETTINGS
from jobbridge.postgres import presence
from jobbridge.postgres.presence import look_parameters
from jobbridge.store.schema.migrate import downgrade, migrate

MODULES: list[ModuleType] = [
    claiming,
    isolation,
    prefetch,
    presence,
    publishing,
    session,
    settling,
    sweeping,
    topology,
    queue_admin,
    window,
]
STATEMENTS = {
    f"{module.__name__}.{name}": statement
    for module in MODULES
    for name, statement in vars(module).items()
    if name.isupper()
    and not name.startswith("_")
    and isinstance(statement, str)
    and "jobbridge_broker." in statement
    and statement.split()[0].isupper()  # else it is a part of others
}

INDEXES = """
SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'jobbridge_broker'
UNION ALL
SELECT relname, 'options', array_to_string(reloptions, ',')
FROM pg_class WHERE relnamespace = 'jobbridge_broker'::regnamespace AND relkind = 'r'
ORDER BY 1, 2
"""


def test_the_metadata_equals_the_migrations(database_url: str, empty_database_url: str) -> None:
    migrated = create_engine(database_url.replace("postgresql://", "postgresql+psycopg://"))
    made = create_engine(empty_database_url.replace("postgresql://", "postgresql+psycopg://"))
    with migrated.connect() as one, made.begin() as other:
        options = {
            "compare_type": True,
            "compare_server_default": True,
            "include_schemas": True,
            "include_name": lambda name, kind, _: kind != "schema" or name == tables.SCHEMA,
        }
        context = MigrationContext.configure(one, opts=options)
        assert compare_metadata(context, tables.metadata) == []

        other.execute(text("CREATE SCHEMA jobbridge_broker"))
        tables.metadata.create_all(other)
        assert other.execute(text(INDEXES)).all() == one.execute(text(INDEXES)).all()
    migrated.dispose()
    made.dispose()


def test_down_and_up_again(database_url: str) -> None:
    downgrade(database_url, "0001_job_tables")
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT to_regnamespace('jobbridge_broker')").fetchone() == (None,)

    migrate(database_url)
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT count(*) FROM jobbridge_broker.messages").fetchone() == (0,)


def test_every_statement_can_be_prepared(database_url: str) -> None:
    assert len(STATEMENTS) > 30
    with psycopg.connect(database_url, autocommit=True) as connection:
        for name, statement in STATEMENTS.items():
            try:
                connection.execute(sql.SQL("PREPARE statement AS ") + sql.SQL(_numbered(statement)))  # type: ignore[arg-type]
            except psycopg.Error as error:
                raise AssertionError(f"{name}: {error}") from error
            connection.execute("DEALLOCATE statement")


def _numbered(statement: str) -> str:
    names: list[str] = []

    def number(match: re.Match[str]) -> str:
        if match.group(1) not in names:
            names.append(match.group(1))
        return f"${names.index(match.group(1)) + 1}"

    return re.sub(r"%\((\w+)\)s", number, statement)


@pytest.fixture
def backlog(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    """A hundred thousand messages, on a connection that is prepared as a consumer's."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO jobbridge_broker.messages (queue, priority, due_at, headers, properties, body, correlation_id)"
            " SELECT 'q' || n % 3, n % 10, CASE WHEN n % 5 = 0 THEN now() + n * interval '1 second' END,"
            " '{}', '{}', '', n"
            " FROM generate_series(1, 100000) AS n"
        )
        connection.execute("ANALYZE jobbridge_broker.messages")
        for name, value in SETTINGS.items():
            connection.execute("SELECT set_config(%s, %s, false)", [name, value])
        yield connection


@pytest.mark.parametrize(
    ("statement", "parameters", "index"),
    [
        (
            claiming.CLAIM,
            {"queue": "q1", "limit": 8, "consumer": 1, "done": [1], "suspect_from": 4},
            "messages_ready",
        ),
        (
            claiming.CLAIM_SUSPECT,
            {"queue": "q1", "limit": 1, "consumer": 1, "done": [1], "suspects": [77]},
            "messages_",
        ),
        (isolation.FIND_SUSPECTS, {"queues": ["q1", "q2"], "suspect_from": 4}, "messages_ready"),
        (sweeping.HELD_BY, {"dead": [1, 2]}, "messages_leased"),
        (claiming.TAKE, {"queue": "q1", "limit": 8}, "messages_ready"),
        (claiming.SECONDS_TO_NEXT_DUE, {"queues": ["q1", "q2"]}, "messages_due"),
        (claiming.PROMOTE_DUE, {"queues": ["q1", "q2"], "limit": 250}, "messages_due"),
        (settling.ACKNOWLEDGE, {"ids": [1, 2], "consumer": 1}, "messages_"),
        (
            sweeping.FREE_LEASES,
            {"dead": [1, 2], "deliveries_allowed": 5, "suspect_from": 4, "not_begun": [1]},
            "messages_leased",
        ),
        (sweeping.SWEEP, look_parameters(1, 3.0), "messages_expiring"),
        (queue_admin.DELETE_WAITING, {"correlation_id": "77"}, "messages_waiting_correlation_id"),
    ],
)
def test_hot_statements_follow_an_index(
    backlog: psycopg.Connection[Any], statement: str, parameters: dict[str, Any], index: str
) -> None:
    rows = backlog.execute("EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) " + statement, parameters).fetchall()  # type: ignore[arg-type]
    plan = "\n".join(row[0] for row in rows)

    assert index in plan
    assert "Seq Scan on messages" not in plan
    most = max(int(float(each)) for each in re.findall(r"messages.*?rows=([\d.]+)", plan))
    assert most <= 500, plan
