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
        "psql",
        "pgsql",
        "postgis",
        "postgresql+psycopg2",
        "postgresql+asyncpg",
        "jobbridge+postgis",
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


@pytest.mark.parametrize(
    ("query", "read"),
    [
        ("ssl=true", {"sslmode": "require"}),
        ("ssl=0", {"sslmode": "disable"}),
        ("ssl=verify-full", {"sslmode": "verify-full"}),
        ("schema=public&pgbouncer=true&connection_limit=5&conn_max_age=600", {}),
        ("statement_cache_size=0&prepared_statement_cache_size=0", {}),
        ("host=a:1&host=b:2", {"host": "a,b", "port": "1,2"}),
        ("host=a,b&port=1,2", {"host": "a,b", "port": "1,2"}),
    ],
)
def test_what_other_drivers_write_is_read(query: str, read: dict[str, str]) -> None:
    given = {} if "host=" in query else {"host": "h"}

    target = Target.of(f"postgresql://{given.get('host', '')}/d?{query}")

    assert target.parameters == {"dbname": "d", **given, **read}


@pytest.mark.parametrize("query", ["ssl=maybe", "prepare=yes"])
def test_what_nobody_can_read_is_named(query: str) -> None:
    with pytest.raises(ConfigurationError, match=query.partition("=")[0]):
        Target.of(f"postgresql://h/d?{query}")


@pytest.mark.parametrize(
    "text",
    [
        "host=first,second port=5432,5433 dbname=d user=u password='it s'",
        " dbname = d host=first,second port=5432,5433 user=u password=it\\ s\n",
        "postgresql://u:it%20s@first:5432,second:5433/d \n",
    ],
)
def test_key_value_strings_and_blanks_around(text: str) -> None:
    assert Target.of(text) == Target.of("postgresql://u:it%20s@first:5432,second:5433/d")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:sec@ret/word@h/d",
        "postgresql://u:sec@ret@h/d",
        "host=h password='secret",
        "host=h password=sec ret",
        "host=h password=secret nonsense=1",
        "mysql://u:secret@h/d",
        "postgresql://u:secret@h/d?nonsense=1",
        "postgresql://u:secret@h/d?password=secret%00",
        "u:secret@h/d",
    ],
)
def test_no_error_shows_a_password(url: str) -> None:
    from jobbridge.app.urls import broker_url_for
    from jobbridge.broker.urls import parse

    for read in (Target.of, broker_url_for, parse):
        with pytest.raises(Exception, match=r"\w") as caught:
            read(url)
        shown = f"{caught.value!r} {caught.value} {getattr(caught.value, 'hint', '')}"
        assert "sec" not in shown.replace("nonsense", "")
        assert "ret" not in shown.replace("nonsense", "")
