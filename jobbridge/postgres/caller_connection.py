"""The connection that a caller brings along: psycopg's, SQLAlchemy's or Django's, down to psycopg's."""

from __future__ import annotations

import sys
from typing import Any, TypeAlias

import psycopg

from jobbridge.errors import UnsupportedOption

DriverConnection: TypeAlias = "psycopg.Connection[Any]"


def driver_connection(connection: object) -> DriverConnection:
    """Give the psycopg connection beneath a caller's connection, session or wrapper.

    A SQLAlchemy connection or session is made to begin its transaction if it has not, as any statement of
    its own would: else its commit would not know of ours.

    Raises:
        UnsupportedOption: There is no psycopg 3 connection beneath.
    """
    if isinstance(connection, psycopg.Connection):
        return connection
    found = _beneath_sqlalchemy(connection) or _beneath_django(connection)
    if isinstance(found, psycopg.Connection):
        return found
    kind = type(found if found is not None else connection)
    raise UnsupportedOption(
        f"connection= is a {kind.__module__}.{kind.__qualname__}, which is no connection of psycopg 3.",
        hint="Pass psycopg's connection, SQLAlchemy's connection or session (postgresql+psycopg), or Django's.",
    )


def _beneath_sqlalchemy(connection: object) -> object | None:
    if "sqlalchemy" not in sys.modules:  # then it is none of SQLAlchemy's
        return None
    from sqlalchemy import Connection
    from sqlalchemy.orm import Session, scoped_session

    if isinstance(connection, Session | scoped_session):
        connection = connection.connection()
    if not isinstance(connection, Connection):
        return None
    if not connection.in_transaction():
        connection.begin()
    return connection.connection.driver_connection


def _beneath_django(wrapper: object) -> object | None:
    ensure = getattr(wrapper, "ensure_connection", None)
    if ensure is None:
        return None
    ensure()
    found: object = getattr(wrapper, "connection", None)
    return found
