"""What a statement says for another schema than public, and which names a schema may have."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from psycopg import sql

from jobbridge.errors import ConfigurationError
from jobbridge.postgres.schema.rendering import in_schema, rendered, speaking
from jobbridge.postgres.target import Target


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("SELECT * FROM public.jobs", "SELECT * FROM mine.jobs"),
        ('UPDATE "public"."job_details" SET a = 1', 'UPDATE mine."job_details" SET a = 1'),
        ("SELECT to_regclass('public.job_workers')", "SELECT to_regclass('mine.job_workers')"),
        ("SELECT public.jobbridge_admit(1)", "SELECT mine.jobbridge_admit(1)"),
        (
            "SELECT nextval('public.job_events_event_id_seq')",
            "SELECT nextval('mine.job_events_event_id_seq')",
        ),
    ],
)
def test_what_is_ours_is_said_for_the_schema(said: str, meant: str) -> None:
    assert in_schema(said, "mine") == meant
    assert in_schema(said.encode(), "mine") == meant.encode()


@pytest.mark.parametrize(
    "said",
    [
        "SELECT * FROM public.invoices JOIN public.job_titles USING (id)",
        "SELECT * FROM public.jobs_of_theirs",
        "SELECT * FROM not_public.jobs, other.public.jobs",
        "GRANT SELECT ON jobs TO PUBLIC; SET search_path = 'public'",
    ],
)
def test_what_is_a_users_own_stays_as_it_is(said: str) -> None:
    assert in_schema(said, "mine") == said


def test_a_migration_says_all_of_it_for_the_schema() -> None:
    said = """SELECT set_config('search_path', 'public', false), to_regclass('public.' || name) TO PUBLIC, "public".x"""
    meant = (
        """SELECT set_config('search_path', 'mine', false), to_regclass('mine.' || name) TO PUBLIC, mine.x"""
    )
    assert in_schema(said, "mine", says_all=True) == meant


def test_what_is_composed_is_rendered_too() -> None:
    connection = SimpleNamespace(schema="mine", adapters=None)
    statement = sql.SQL("SELECT * FROM {}").format(sql.Identifier("public", "jobs"))
    assert rendered(statement, connection) == 'SELECT * FROM mine."jobs"'


def test_for_public_nothing_is_touched() -> None:
    statement: Any = object()
    assert rendered(statement, SimpleNamespace(schema="public")) is statement


def test_a_class_of_cursors_is_made_once() -> None:
    class Kind: ...

    assert speaking(Kind) is speaking(Kind) is speaking(speaking(Kind))


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ('"mine"', "other characters"),
        ("my-jobs", "other characters"),
        ("Mine", "other characters"),
        ("1st", "begins with a digit"),
        ("größe", "other characters"),
        ("pg_jobs", "Postgres's own"),
        ("a" * 64, "more than 63 bytes"),
        ("user", "a word of SQL"),
        ("jobbridge_broker", "the messages are there"),
        ("information_schema", "the SQL standard's"),
    ],
)
def test_a_name_that_cannot_be_is_refused_by_name(name: str, fault: str) -> None:
    with pytest.raises(ConfigurationError, match=fault) as raised:
        Target.of(f"host=h dbname=d schema={name}")
    assert repr(name) in str(raised.value)
    assert "JOBBRIDGE_SCHEMA" in raised.value.hint


@pytest.mark.parametrize("url", ["postgresql://h/d?schema=mine", "host=h dbname=d schema=mine"])
def test_a_url_carries_it_and_the_driver_does_not_hear_of_it(url: str) -> None:
    target = Target.of(url)
    assert (target.schema, target.parameters) == ("mine", {"host": "h", "dbname": "d"})
    assert target.url == "postgresql://h/d?schema=mine"
    assert Target.of(target.url) == target
    assert "schema" not in str(target.sqlalchemy_url())


def test_two_that_differ_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="name two schemas: mine, yours"):
        Target.of("postgresql://h/d?currentSchema=mine&schema=yours")
