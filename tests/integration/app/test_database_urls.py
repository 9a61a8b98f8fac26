"""A database's URL as people write it is read alike by whoever reads it."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from jobbridge import Celery
from jobbridge.broker.transport import Transport
from jobbridge.errors import ConfigurationError
from jobbridge.postgres.target import Target
from jobbridge.settings import load_settings
from jobbridge.store.schema.migrate import current
from tests.forked import run_python
from tests.support import clean_environment

FORMS = [
    "{url}\n",
    "postgres://{user}:{password}@{host}:{port}/{name}",
    "psql://{user}:{password}@{host}:{port}/{name}",
    "postgis://{user}:{password}@{host}:{port}/{name}?ssl=prefer",
    "postgresql+psycopg2://{user}:{password}@{host}:{port}/{name}",
    "postgresql+asyncpg://{user}:{password}@{host}:{port}/{name}?ssl=disable",
    "postgresql://{user}:{password}@127.0.0.1:1,{host}:{port}/{name}",
    "postgresql://{user}:{password}@/{name}?host=127.0.0.1:1&host={host}:{port}",
    "postgresql://{user}:{password}@{host}:{port}/{name}?schema=public&pgbouncer=true",
    "host={host} port={port} dbname={name} user={user} password={password}",
]


@pytest.mark.parametrize("form", FORMS)
def test_every_reader_finds_the_database(database_url: str, form: str) -> None:
    parts = make_url(database_url)
    written = form.format(
        url=database_url,
        user=parts.username,
        password=parts.password,
        host=parts.host,
        port=parts.port,
        name=parts.database,
    )
    app = Celery("urls", settings=load_settings({"DATABASE_URL": written}))
    try:
        assert app.database.target == Target.of(written)
        with app.connection_for_write() as connection:
            transport = connection.transport
            assert isinstance(transport, Transport)
            assert transport.target == app.database.target
        assert app.shares_database_with_broker
        app.send_task("nobody.knows")
        with app.database.connection() as connection:
            assert connection.info.dbname == parts.database
            assert connection.execute("SELECT count(*) FROM jobbridge_broker.messages").fetchone() == (1,)
        assert current(written)
    finally:
        app.close()


def test_a_broker_url_is_read_likewise(database_url: str) -> None:
    written = database_url.replace("postgresql://", "jobbridge+postgis://") + "?ssl=prefer"
    app = Celery("urls", broker=written, settings=load_settings({"DATABASE_URL": "sqlite:///db.sqlite3"}))

    app.send_task("nobody.knows")

    assert app.shares_database_with_broker
    app.close()


def test_a_database_of_somebody_elses_is_named_when_it_is_needed() -> None:
    app = Celery("urls", settings=load_settings({"DATABASE_URL": "mysql://u:secret@h/d"}))
    with pytest.raises(ConfigurationError, match="mysql") as refused:
        app.send_task("nobody.knows")
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("command", [["doctor"], ["migrate"], ["jobs", "list"]])
def test_a_command_refuses_by_name_and_shows_no_password(command: list[str], tmp_path: Path) -> None:
    for url in ("host=h password=sec'ret", "mysql://u:sec'ret@h/d", "postgresql://u:sec'ret@h/d?schema=mine"):
        done = run_python(
            ["-m", "jobbridge.cli", *command], env=clean_environment({"DATABASE_URL": url}), cwd=tmp_path
        )
        said = done.stdout + done.stderr
        assert "sec'ret" not in said
        assert "This is a bug" not in said
        assert "database" in said
        assert done.returncode != 0
