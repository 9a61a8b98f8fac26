"""Row-level security: one tenant's database role sees and writes nothing of another's; and the rules of Citus."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

import jobbridge
from jobbridge.cli.root import run
from jobbridge.dev.postgres import PostgresServer
from jobbridge.errors import ConfigurationError
from jobbridge.recording import JobRecorder
from jobbridge.store.database import Database
from jobbridge.store.schema import migrate as migrations
from jobbridge.store.schema.conventions import OPEN_TABLES, SERVICE_TABLES, TENANT_TABLES
from tests.job_events import EventsOf, new_key
from tests.originals import TENANT, create_originals

ACME, OTHER = "11111111-1111-4111-8111-111111111111", "33333333-3333-4333-8333-333333333333"
assert str(TENANT) == ACME

#: Columns that must have a value of their own, by type.
VALUES = {
    "text": "'x'",
    "uuid": "gen_random_uuid()",
    "jsonb": "'{}'",
    "json": "'{}'",
    "boolean": "true",
    "integer": "0",
    "bigint": "0",
    "smallint": "0",
    "real": "0",
    "timestamp with time zone": "now()",
    "interval": "'1 day'",
    "bytea": "''",
    "ARRAY": "'{}'",
}


@dataclass
class Cluster:
    """A database whose owner is no superuser, and a role of one tenant's application."""

    owner_url: str
    tenant_url: str
    tenant_role: str


@contextmanager
def _cluster(postgres: PostgresServer, *, is_adopted: bool) -> Iterator[Cluster]:
    name = f"separate_{uuid4().hex[:12]}"
    owner, tenant = f"{name}_owner", f"{name}_tenant"
    url = postgres.create_database(name)
    with psycopg.connect(postgres.url(), autocommit=True) as admin:
        for role in (owner, tenant):
            admin.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'x'").format(sql.Identifier(role)))
        admin.execute(
            sql.SQL("ALTER DATABASE {} OWNER TO {}").format(sql.Identifier(name), sql.Identifier(owner))
        )
    try:
        owner_url, tenant_url = (_as_role(url, role) for role in (owner, tenant))
        if is_adopted:
            with psycopg.connect(url, autocommit=True) as admin:
                admin.execute(sql.SQL("GRANT ALL ON SCHEMA public TO {}").format(sql.Identifier(owner)))
            create_originals(owner_url)
        migrations.migrate(owner_url)
        migrations.set_row_level_security(owner_url, is_on=True)
        with psycopg.connect(owner_url) as connection:
            grant = "GRANT ALL ON ALL TABLES IN SCHEMA public TO {}"
            connection.execute(sql.SQL(grant).format(sql.Identifier(tenant)))
        yield Cluster(owner_url, tenant_url, tenant)
    finally:
        with psycopg.connect(postgres.url(), autocommit=True) as admin:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
            for role in (owner, tenant):
                admin.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


def _as_role(url: str, role: str) -> str:
    return f"postgresql://{role}:x@{url.partition('@')[2]}"


@pytest.fixture(scope="module", params=[False, True], ids=["fresh", "adopted"])
def cluster(request: pytest.FixtureRequest, postgres: PostgresServer) -> Iterator[Cluster]:
    with _cluster(postgres, is_adopted=request.param) as cluster:
        with psycopg.connect(cluster.owner_url) as connection:
            for table in TENANT_TABLES:
                for tenant in (ACME, OTHER):
                    connection.execute(_insert(connection, table), {"tenant": tenant})
        yield cluster


@pytest.fixture
def acme(cluster: Cluster) -> Iterator[psycopg.Connection[Any]]:
    """A session of the tenant's role, which says that it is acme's; all that it does is rolled back."""
    with psycopg.connect(cluster.tenant_url) as connection:
        connection.execute("SELECT set_config('app.current_tenant', %s, false)", [ACME])
        yield connection
        connection.rollback()


@pytest.mark.parametrize("table", TENANT_TABLES)
def test_a_tenants_role_reads_and_writes_its_own_rows_only(acme: psycopg.Connection[Any], table: str) -> None:
    name = sql.Identifier(table)
    seen = acme.execute(sql.SQL("SELECT DISTINCT tenant::text FROM {}").format(name)).fetchall()
    theirs = sql.SQL("WHERE tenant = {}").format(sql.Literal(OTHER))
    mine = sql.SQL("WHERE tenant = {}").format(sql.Literal(ACME))

    assert seen == [(ACME,)]
    for statement in ("UPDATE {} SET tenant = tenant {}", "DELETE FROM {} {}"):
        assert acme.execute(sql.SQL(statement).format(name, theirs)).rowcount == 0
        assert acme.execute(sql.SQL("SELECT FROM {} {} FOR UPDATE").format(name, theirs)).fetchall() == []
    for statement in (
        sql.SQL("UPDATE {} SET tenant = {} {}").format(name, sql.Literal(OTHER), mine),
        sql.SQL(_insert(acme, table).replace("%(tenant)s", f"'{uuid4()}'")),
    ):
        with (
            pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"),
            acme.transaction(),
        ):
            acme.execute(statement)
    assert acme.execute(sql.SQL("DELETE FROM {} {}").format(name, mine)).rowcount >= 1


@pytest.mark.parametrize("setting", [None, ""])
def test_a_session_that_names_no_tenant_sees_nothing(cluster: Cluster, setting: str | None) -> None:
    with psycopg.connect(cluster.tenant_url) as connection:
        if setting is not None:
            connection.execute("SELECT set_config('app.current_tenant', %s, false)", [setting])
        for table in TENANT_TABLES:
            assert (
                connection.execute(sql.SQL("SELECT FROM {}").format(sql.Identifier(table))).fetchall() == []
            )


def test_the_workers_role_serves_all_tenants(cluster: Cluster) -> None:
    database = Database(cluster.owner_url)
    recorder = JobRecorder(database)
    for tenant in (str(uuid4()), str(uuid4())):
        job = EventsOf(new_key(tenant))
        for event in (job.submitted(), job.started(), job.progressed(), job.completed(result={"n": 1})):
            assert recorder.record(event).applied
    database.close()


def test_security_can_be_switched_off_and_given_to_further_roles(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with _cluster(postgres, is_adopted=False) as cluster:
        monkeypatch.setenv("DATABASE_URL", cluster.owner_url)
        job = EventsOf(new_key(OTHER))
        with psycopg.connect(cluster.tenant_url, autocommit=True) as connection:
            database = Database(cluster.owner_url)
            JobRecorder(database).record(job.submitted())
            database.close()
            read = "SELECT count(*) FROM jobs"
            assert connection.execute(read).fetchone() == (0,)

            assert run(["migrate", "--row-level-security", "on", "--service-role", cluster.tenant_role]) == 0
            assert cluster.tenant_role in capsys.readouterr().out
            assert connection.execute(read).fetchone() == (1,)
            assert run(["migrate", "--row-level-security", "on"]) == 0
            assert connection.execute(read).fetchone() == (0,)
            assert run(["migrate", "--row-level-security", "off", "--json"]) == 0
            assert connection.execute(read).fetchone() == (1,)
        with pytest.raises(ConfigurationError, match="no role 'nobody-there'"):
            migrations.set_row_level_security(cluster.owner_url, is_on=True, service_roles=["nobody-there"])


def test_tables_of_later_migrations_are_separated_too(postgres: PostgresServer) -> None:
    with _cluster(postgres, is_adopted=False) as cluster:
        migrations.downgrade(cluster.owner_url, "0002_broker")
        migrations.migrate(cluster.owner_url)

        with psycopg.connect(cluster.owner_url) as connection:
            found = connection.execute(
                "SELECT relnamespace::regnamespace || '.' || relname FROM pg_class WHERE relforcerowsecurity"
            ).fetchall()
    assert {table for (table,) in found} == {*(f"public.{table}" for table in TENANT_TABLES), *SERVICE_TABLES}


def test_each_of_our_tables_is_decided_about(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        found = connection.execute(
            "SELECT schemaname || '.' || tablename FROM pg_tables"
            " WHERE schemaname IN ('public', 'jobbridge', 'jobbridge_broker')"
        ).fetchall()

    decided = [*(f"public.{table}" for table in TENANT_TABLES), *SERVICE_TABLES, *OPEN_TABLES]
    assert sorted(table for (table,) in found) == sorted(decided)


def test_what_belongs_to_the_installation_is_not_for_tenants(
    cluster: Cluster, acme: psycopg.Connection[Any]
) -> None:
    """The tenant's role was granted all that can be granted on tables."""
    with psycopg.connect(cluster.owner_url) as owner:
        for what in ("SCHEMA", "ALL TABLES IN SCHEMA", "ALL SEQUENCES IN SCHEMA"):
            for schema in ("public", "jobbridge_broker"):
                grant = sql.SQL("GRANT ALL ON {} {} TO {}").format(
                    sql.SQL(what), sql.Identifier(schema), sql.Identifier(cluster.tenant_role)
                )
                owner.execute(grant)
        for table in SERVICE_TABLES:
            statement = _insert(owner, table)
            owner.execute(statement + " ON CONFLICT DO NOTHING")
        owner.commit()
        for table in SERVICE_TABLES:
            name = sql.Identifier(*table.split("."))
            statement = _insert(owner, table)
            assert owner.execute(sql.SQL("SELECT count(*) > 0 FROM {}").format(name)).fetchone() == (True,), (
                table
            )
            for query in ("SELECT * FROM {}", "DELETE FROM {} RETURNING *"):
                assert acme.execute(sql.SQL(query).format(name)).fetchall() == [], table
            with (
                pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"),
                acme.transaction(),
            ):
                acme.execute(statement)


# -- distribution by tenant


def test_the_list_of_tables_with_a_tenant_is_complete(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        found = connection.execute(
            "SELECT table_name FROM information_schema.columns"
            " WHERE table_schema = 'public' AND column_name = 'tenant'"
        ).fetchall()

    assert {table for (table,) in found} == {*TENANT_TABLES}


def test_every_unique_key_contains_the_tenant_and_nothing_cascades(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        keys = connection.execute(
            """
            SELECT indexrelid::regclass::text, array_agg(attname::text)
            FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = ANY(indkey)
            WHERE indisunique AND indrelid::regclass::text = ANY(%s) GROUP BY 1
            """,
            [list(TENANT_TABLES)],
        ).fetchall()
        foreign = connection.execute(
            "SELECT conname FROM pg_constraint WHERE contype = 'f'"
            " AND connamespace::regnamespace::text IN ('public', 'jobbridge_broker')"
        ).fetchall()

    assert len(keys) >= len(TENANT_TABLES)
    assert [name for name, columns in keys if "tenant" not in columns] == []
    assert foreign == []


def test_no_statement_joins_the_brokers_tables_with_the_jobs() -> None:
    package = Path(jobbridge.__file__).parent
    both = [
        f"{path.relative_to(package)}:{node.lineno}"
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant | ast.JoinedStr)
        and "jobbridge_broker." in (text := ast.unparse(node))
        and "public.job" in text
    ]

    assert both == []


def test_without_citus_distribution_does_nothing(
    database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)

    assert run(["migrate", "--distribute", "--json"]) == 0

    assert json.loads(capsys.readouterr().out)["distributed"] == []


def test_with_citus_each_table_is_distributed_once_beside_the_jobs(database_url: str) -> None:
    """Citus' own functions are not here: these take their place, and note what they were called with."""
    with psycopg.connect(database_url) as connection:
        connection.execute(
            """
            CREATE TABLE public.pg_dist_partition (logicalrelid regclass, tenant_column text, beside text);
            CREATE FUNCTION public.create_distributed_table(name regclass, by text, colocate_with text) RETURNS void
            LANGUAGE sql AS 'INSERT INTO public.pg_dist_partition VALUES (name, by, colocate_with)';
            """
        )

    first, second = migrations.distribute(database_url), migrations.distribute(database_url)

    assert sorted(first) == sorted(TENANT_TABLES)
    assert second == []
    with psycopg.connect(database_url) as connection:
        rows = connection.execute(
            "SELECT logicalrelid::text, tenant_column, beside FROM pg_dist_partition"
        ).fetchall()
    assert ("jobs", "tenant", "default") in rows
    assert {row[1:] for row in rows if row[0] != "jobs"} == {("tenant", "jobs")}


def _insert(connection: psycopg.Connection[Any], table: str) -> str:
    """Write an INSERT of a row that the table accepts."""
    schema, _, name = table.rpartition(".")
    columns = connection.execute(
        """
        SELECT column_name, data_type FROM information_schema.columns
        WHERE table_schema = %s AND table_name = %s AND is_nullable = 'NO' AND column_default IS NULL
          AND is_identity = 'NO' AND column_name <> 'tenant'
        """,
        [schema or "public", name],
    ).fetchall()
    checks = connection.execute(
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE contype = 'c' AND conrelid = %s::regclass",
        [table],
    ).fetchall()
    values = [
        _allowed(name, [check for (check,) in checks]) or VALUES[data_type] for name, data_type in columns
    ]
    names = [f'"{name}"' for name, _ in columns]
    if not schema:
        names, values = ["tenant", *names], ["%(tenant)s", *values]
    return f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join(values)})"


def _allowed(column: str, checks: list[str]) -> str | None:
    """Give the first of the values that a CHECK allows for a column."""
    for check in checks:
        start, found, rest = check.partition(f"{column} = ANY (ARRAY['")
        if found and start.endswith("("):
            return "'" + rest.partition("'")[0] + "'"
    return None
