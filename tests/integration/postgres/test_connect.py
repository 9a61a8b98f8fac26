"""Connections, whatever the server, the role and the database are set to."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest
from psycopg import sql

from jobbridge.dev.postgres import PostgresServer
from jobbridge.errors import DatabaseRefused, DatabaseUnavailable
from jobbridge.postgres.connect import connect, connect_async
from jobbridge.postgres.faults import Kind, kind_of
from jobbridge.postgres.target import Target

_SETTINGS = {
    "statement_timeout": "200ms",
    "lock_timeout": "200ms",
    "idle_in_transaction_session_timeout": "200ms",
    "idle_session_timeout": "200ms",
    "transaction_timeout": "200ms",
    "default_transaction_isolation": "serializable",
    "TimeZone": "Asia/Tokyo",
    "client_encoding": "LATIN1",
}


def _shown(connection: psycopg.Connection[tuple[str]], name: str) -> str:
    row = connection.execute("SELECT current_setting(%s)", [name]).fetchone()
    assert row is not None
    return row[0]


@pytest.fixture
def set_up_url(postgres: PostgresServer, empty_database_url: str) -> Iterator[str]:
    """A database for whose role somebody has set everything that hurts."""
    role = f"role_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(postgres.url(), autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'secret'").format(sql.Identifier(role)))
        for name, value in _SETTINGS.items():
            admin.execute(
                sql.SQL("ALTER ROLE {} SET {} = {}").format(sql.Identifier(role), sql.Identifier(name), value)
            )
    name = empty_database_url.rsplit("/", 1)[1]
    yield f"postgresql://{role}:secret@127.0.0.1:{postgres.port}/{name}"
    with psycopg.connect(postgres.url(), autocommit=True) as admin:
        admin.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


def test_what_is_set_for_a_role_does_not_hold_here(set_up_url: str) -> None:
    with closing(connect(Target.of(set_up_url), "jobs")) as connection:
        connection.execute("SELECT pg_sleep(0.3)")

        assert {name: _shown(connection, name) for name in _SETTINGS} == {
            "statement_timeout": "0",
            "lock_timeout": "0",
            "idle_in_transaction_session_timeout": "1min",
            "idle_session_timeout": "0",
            "transaction_timeout": "0",
            "default_transaction_isolation": "read committed",
            "TimeZone": "UTC",
            "client_encoding": "UTF8",
        }


def test_the_sessions_own_settings_hold(empty_database_url: str) -> None:
    own = {"statement_timeout": "2s", "enable_seqscan": "off"}
    with closing(connect(Target.of(empty_database_url), "jobs", settings=own)) as connection:
        assert {name: _shown(connection, name) for name in own} == own


def test_pg_stat_activity_says_what_a_connection_is_for(empty_database_url: str) -> None:
    with closing(
        connect(Target.of(f"{empty_database_url}?application_name=books"), "presence")
    ) as connection:
        assert _shown(connection, "application_name").startswith("books ")
        assert _shown(connection, "application_name").endswith(" presence")


async def _opened(url: str) -> tuple[str, str]:
    connection = await connect_async(Target.of(url), "live")
    async with connection:
        row = await (
            await connection.execute(
                "SELECT current_setting('TimeZone'), current_setting('application_name')"
            )
        ).fetchone()
    assert row is not None
    return row[0], row[1]


def test_on_an_event_loop_it_is_the_same(empty_database_url: str) -> None:
    import asyncio

    zone, name = asyncio.run(_opened(empty_database_url))

    assert (zone, name.rsplit(" ", 1)[1]) == ("UTC", "live")


def test_a_host_that_is_down_is_passed_over(postgres: PostgresServer, empty_database_url: str) -> None:
    url = empty_database_url.replace("@", "@127.0.0.1:1,")
    with closing(connect(Target.of(url), "jobs")) as connection:
        assert connection.info.port == postgres.port


def test_a_host_that_only_reads_is_passed_over_if_the_url_says_so(
    postgres: PostgresServer, empty_database_url: str
) -> None:
    url = f"{empty_database_url}?target_session_attrs=standby"

    with pytest.raises(DatabaseUnavailable, match="standby") as caught:
        connect(Target.of(url), "jobs")

    assert not isinstance(caught.value, DatabaseRefused)


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_another_encoding_is_refused_and_the_way_out_said(postgres: PostgresServer, encoding: str) -> None:
    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(postgres.url(), autocommit=True) as admin:
        admin.execute(
            sql.SQL(
                "CREATE DATABASE {} ENCODING {} LOCALE 'C' LOCALE_PROVIDER libc TEMPLATE template0"
            ).format(sql.Identifier(name), encoding)
        )
        try:
            with pytest.raises(DatabaseRefused, match=encoding) as caught:
                connect(Target.of(postgres.url(name)), "jobs")
        finally:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))

    assert "ENCODING 'UTF8'" in caught.value.hint


def test_a_wrong_password_is_no_matter_of_waiting(postgres: PostgresServer) -> None:
    url = f"postgresql://jobbridge:wrong@127.0.0.1:{postgres.port}/postgres"

    with pytest.raises(DatabaseRefused, match="authentication failed") as caught:
        connect(Target.of(url), "jobs")

    assert "password" in caught.value.hint


def test_a_database_that_is_not_there_is_no_matter_of_waiting(postgres: PostgresServer) -> None:
    with pytest.raises(DatabaseRefused, match="does not exist") as caught:
        connect(Target.of(postgres.url("nowhere")), "jobs")

    assert caught.value.hint.startswith("Create")


def test_nobody_there_is_a_matter_of_waiting() -> None:
    with pytest.raises(DatabaseUnavailable) as caught:
        connect(Target.of("postgresql://u@127.0.0.1:1/d"), "jobs")

    assert not isinstance(caught.value, DatabaseRefused)


def test_a_full_server_is_a_matter_of_waiting(postgres: PostgresServer, empty_database_url: str) -> None:
    name = empty_database_url.rsplit("/", 1)[1]
    role = f"role_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(postgres.url(), autocommit=True) as admin:
        admin.execute(
            sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'secret' CONNECTION LIMIT 0").format(sql.Identifier(role))
        )
        try:
            with pytest.raises(DatabaseUnavailable, match="too many connections") as caught:
                connect(Target.of(f"postgresql://{role}:secret@127.0.0.1:{postgres.port}/{name}"), "jobs")
        finally:
            admin.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))

    assert not isinstance(caught.value, DatabaseRefused)


def test_a_session_that_was_ended_is_lost(postgres: PostgresServer, empty_database_url: str) -> None:
    with closing(connect(Target.of(empty_database_url), "jobs")) as connection:
        with psycopg.connect(postgres.url(), autocommit=True) as admin:
            admin.execute("SELECT pg_terminate_backend(%s)", [connection.info.backend_pid])
        with pytest.raises(psycopg.OperationalError) as caught:
            connection.execute("SELECT 1")

        assert kind_of(caught.value, connection) is Kind.LOST


def test_a_cancelled_statement_is_not_lost(empty_database_url: str) -> None:
    settings = {"statement_timeout": "10ms"}
    with closing(connect(Target.of(empty_database_url), "jobs", settings=settings)) as connection:
        with pytest.raises(psycopg.errors.QueryCanceled) as caught:
            connection.execute("SELECT pg_sleep(10)")

        assert kind_of(caught.value, connection) is Kind.TRANSIENT
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_forked_child_cannot_speak_on_its_parents_connection(empty_database_url: str) -> None:
    with closing(connect(Target.of(empty_database_url), "jobs")) as connection:
        child = os.fork()
        if child == 0:
            connection.pgconn.finish()  # as a finalizer would: says good-bye
            os._exit(0)
        os.waitpid(child, 0)

        assert connection.execute("SELECT 1").fetchone() == (1,)
