"""One way to Postgres: nobody else opens a connection, or reads an error by its text."""

from __future__ import annotations

import ast

from tests.architecture.test_rooms import modules
from tests.support import REPOSITORY

#: Development's servers are asked for before there is anything to connect with; the handlers use the public interface.
_ELSEWHERE = ("jobbridge/postgres/", "jobbridge/dev/", "jobbridge/handlers/")
#: With a `creator` of ours, an engine opens nothing by itself.
_ENGINES = {"jobbridge/broker/transport.py", "jobbridge/store/schema/migrate.py"}
_OPENING = {
    "psycopg.connect",
    "Connection.connect",
    "AsyncConnection.connect",
    "ConnectionPool",
    "AsyncConnectionPool",
}


def _calls(name: str) -> list[tuple[str, ast.Call]]:
    tree = ast.parse((REPOSITORY / name).read_text())
    return [(ast.unparse(node.func), node) for node in ast.walk(tree) if isinstance(node, ast.Call)]


def test_connections_are_opened_in_one_place() -> None:
    outside = [name for name in modules() if not name.startswith(_ELSEWHERE)]
    assert len(outside) > 100

    opened = {
        (name, called)
        for name in outside
        for called, _ in _calls(name)
        if called in _OPENING or called.endswith(tuple(f".{opening}" for opening in _OPENING))
    }

    assert opened == set()


def test_cursors_are_made_by_who_renders_statements_for_the_schema() -> None:
    """`connection.cursor()` and `cursor_on` do; psycopg's classes, called by their names, would say `public.`."""
    made = {
        (name, called)
        for name in modules()
        if not name.startswith("jobbridge/postgres/")
        for called, _ in _calls(name)
        if called.rpartition(".")[2].endswith("Cursor")
    }

    assert made == set()


def test_an_engine_is_given_what_opens_its_connections() -> None:
    made = {
        name: ast.unparse(call)
        for name in modules()
        for called, call in _calls(name)
        if called.rpartition(".")[2] == "create_engine"
    }

    assert set(made) == _ENGINES
    assert all("creator" in call for call in made.values()), made
