"""URLs, read."""

from __future__ import annotations

import pytest

from jobbridge.errors import ConfigurationError
from jobbridge.postgres.target import Target


@pytest.mark.parametrize(
    "scheme",
    [
        "postgres",
        "postgresql",
        "postgresql+psycopg",
        "jobbridge+postgresql",
        "jobbridge+postgresql+psycopg",
        "jobbridge.broker.transport:Transport+postgresql",
    ],
)
def test_every_scheme_of_ours_is_read(scheme: str) -> None:
    target = Target.of(f"{scheme}://me:se%20cret@db.example:5433/books?sslmode=require")

    assert target.parameters == {
        "user": "me",
        "password": "se cret",
        "host": "db.example",
        "port": "5433",
        "dbname": "books",
        "sslmode": "require",
    }


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("postgresql://u@first,second:5433/d", [("first", ""), ("second", "5433")]),
        ("postgresql://u@/d?host=first:5432&host=second:5433", [("first", "5432"), ("second", "5433")]),
        ("postgresql://u@[::1]:5/d", [("::1", "5")]),
        ("postgresql:///d?host=/run/postgresql&port=6", [("/run/postgresql", "6")]),
        ("postgresql://u@%2Frun%2Fpostgresql/d", [("/run/postgresql", "")]),
        ("postgresql:///d", [("", "")]),
    ],
)
def test_hosts(url: str, hosts: list[tuple[str, str]]) -> None:
    assert Target.of(url).hosts == hosts


def test_a_password_that_is_not_quoted_is_read_all_the_same() -> None:
    assert Target.of("postgresql://u:a/b?c#d@h/db").parameters["password"] == "a/b?c#d"


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("", "no scheme"),
        ("redis://user:secret@h", "redis"),
        ("mysql+postgres", "no scheme"),
        ("h/d", "no scheme"),
        ("postgresql://h/d?pool_size=4", "pool_size"),
        ("postgresql://h:x/d", "h:x"),
    ],
)
def test_what_cannot_be_read_is_named(url: str, named: str) -> None:
    with pytest.raises(ConfigurationError, match=named) as caught:
        Target.of(url)

    assert "postgresql://user:password@host" in caught.value.hint
    assert "secret" not in str(caught.value)


def test_the_password_is_not_shown() -> None:
    target = Target.of("postgresql://me:secret@h:1/d?sslpassword=secret")

    assert "secret" not in f"{target} {target!r}"
    assert str(target) == "Postgres database 'd' at h:1"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:p%40@h:5/d?sslmode=require",
        "postgresql://u@first:1,second:2/d",
        "postgresql:///d?host=/run/postgresql",
    ],
)
def test_sqlalchemys_form_says_the_same(url: str) -> None:
    target = Target.of(url)

    assert Target.of(target.url) == target


def test_two_urls_of_one_database_have_one_place() -> None:
    one, other = "postgresql://u:p@h/d?sslmode=require", "jobbridge+postgresql://other@h:5432/d"

    assert Target.of(one).place == Target.of(other).place
    assert Target.of(one).place != Target.of("postgresql://h/other").place
