"""What errors mean."""

from __future__ import annotations

import psycopg
import pytest

from jobbridge.postgres.faults import Kind, kind_of


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        ("57P01", Kind.LOST),
        ("57P03", Kind.LOST),
        ("57P05", Kind.LOST),
        ("25P03", Kind.LOST),
        ("08006", Kind.LOST),
        ("57014", Kind.TRANSIENT),
        ("55P03", Kind.TRANSIENT),
        ("40001", Kind.TRANSIENT),
        ("40P01", Kind.TRANSIENT),
        ("53300", Kind.TRANSIENT),
        ("53100", Kind.TRANSIENT),
        ("25006", Kind.TRANSIENT),
        ("22P05", Kind.REFUSED),
        ("23505", Kind.REFUSED),
        ("42501", Kind.REFUSED),
        ("42P01", Kind.WRONG),
        ("42703", Kind.WRONG),
    ],
)
def test_a_sqlstate_decides(state: str, kind: Kind) -> None:
    assert kind_of(psycopg.errors.lookup(state)("whatever it says")) is kind


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (psycopg.OperationalError("the connection is lost"), Kind.LOST),
        (psycopg.InterfaceError("the connection is closed"), Kind.LOST),
        (ConnectionResetError(), Kind.LOST),
        (psycopg.DataError("PostgreSQL text fields cannot contain NUL (0x00) bytes"), Kind.REFUSED),
        (psycopg.ProgrammingError("cannot adapt type 'object'"), Kind.REFUSED),
        (ValueError("a bad value"), Kind.REFUSED),
    ],
)
def test_without_a_sqlstate_it_never_came_from_the_server(error: Exception, kind: Kind) -> None:
    assert kind_of(error) is kind
