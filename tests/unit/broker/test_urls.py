"""Broker URLs: what kombu hands over, and what is shown."""

from __future__ import annotations

import pytest
from kombu import Connection

from jobbridge.broker import register
from jobbridge.broker.errors import InvalidOption
from jobbridge.broker.transport import Transport
from jobbridge.postgres.target import Target

register()

FORMS = [
    "jobbridge+postgresql://ann:s%40cret@db.example:6543/jobs",
    "jobbridge+postgresql+psycopg://ann:s%40cret@db.example:6543/jobs",
    "jobbridge+postgres://ann:s%40cret@db.example:6543/jobs",
    "jobbridge://ann:s%40cret@db.example:6543/jobs",
]


def url_of(connection: Connection) -> str:
    assert isinstance(connection.transport, Transport)
    return connection.transport.url.written()


@pytest.mark.parametrize("form", FORMS)
def test_every_form_leads_to_the_same_database(form: str) -> None:
    assert url_of(Connection(form)) == "postgresql://ann:s%40cret@db.example:6543/jobs"


@pytest.mark.parametrize("form", FORMS)
def test_the_password_is_masked(form: str) -> None:
    connection = Connection(form)

    assert connection.as_uri() == "jobbridge+postgresql://ann:**@db.example:6543/jobs"
    assert "s%40cret" in connection.as_uri(include_password=True)
    assert "cret" not in repr(connection)


def test_what_inspect_stats_shows_has_no_password() -> None:
    connection = Connection("jobbridge+postgresql://ann:secret@db/jobs?password=other")
    url_of(connection)

    shown = connection.info()
    shown.pop("password")  # as Celery does
    assert "secret" not in repr(shown)
    assert "other" not in repr(shown)


def test_a_clone_has_the_password() -> None:
    connection = Connection("jobbridge+postgresql://ann:secret@db/jobs")
    url_of(connection)

    assert url_of(connection.clone()) == "postgresql://ann:secret@db/jobs"
    assert url_of(connection.clone().clone()) == "postgresql://ann:secret@db/jobs"


def test_the_query_reaches_the_driver() -> None:
    connection = Connection("jobbridge+postgresql://ann@/jobs?host=/run/postgresql&sslmode=disable")

    assert url_of(connection) == "postgresql://ann@/jobs?host=%2Frun%2Fpostgresql&sslmode=disable"


def test_the_class_can_be_named_instead_of_the_alias() -> None:
    connection = Connection(
        "postgresql://ann:secret@db/jobs", transport="jobbridge.broker.transport:Transport"
    )

    assert url_of(connection) == "postgresql://ann:secret@db/jobs"
    assert url_of(connection.clone()) == "postgresql://ann:secret@db/jobs"


def test_the_next_url_of_a_failover_list_keeps_its_query() -> None:
    connection = Connection("jobbridge+postgresql://one/a;jobbridge+postgresql://u:p@/b?host=/run/two")
    assert url_of(connection) == "postgresql://one/a"

    connection.maybe_switch_next()

    assert url_of(connection) == "postgresql://u:p@/b?host=%2Frun%2Ftwo"
    connection.maybe_switch_next()
    assert url_of(connection) == "postgresql://one/a"


def test_several_hosts_of_one_database_are_kept() -> None:
    connection = Connection("jobbridge+postgresql://ann@one:1,two:2/jobs?target_session_attrs=primary")

    assert Target.of(url_of(connection)).hosts == [("one", "1"), ("two", "2")]
    assert "target_session_attrs=primary" in url_of(connection)
    assert url_of(connection.clone()) == url_of(connection)


def test_another_database_is_refused() -> None:
    with pytest.raises(InvalidOption, match=r"mysql.*Write it as jobbridge\+postgresql"):
        url_of(Connection("jobbridge+mysql://ann@db/jobs"))


def test_the_password_is_not_in_the_error_about_its_url() -> None:
    with pytest.raises(InvalidOption) as raised:
        url_of(Connection("jobbridge+postgresql://ann:secret@db:port/jobs"))

    assert "secret" not in str(raised.value)


def test_register_can_be_called_again() -> None:
    register()
    register()


def test_the_transport_is_of_kombus_sqlalchemy_family_for_whoever_asks() -> None:
    from kombu.transport import sqlalchemy

    assert issubclass(Transport, sqlalchemy.Transport)
    assert issubclass(Transport.Channel, sqlalchemy.Channel)


def test_an_engine_is_made_of_the_options_for_it() -> None:
    connection = Connection(FORMS[0], transport_options={"pool_recycle": 5, "echo": False})

    assert isinstance(connection.transport, Transport)
    engine = connection.transport.engine
    assert (
        engine.url.render_as_string(hide_password=False)
        == "postgresql+psycopg://ann:s%40cret@db.example:6543/jobs"
    )
    assert engine.pool._recycle == 5
