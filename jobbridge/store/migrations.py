"""Make and change the tables: alembic, from the checkout or from the wheel."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import exc

from jobbridge.errors import DatabaseError, DatabaseUnavailable, NotMigrated, SchemaTooNew
from jobbridge.store.database import sqlalchemy_url

VERSION_TABLE = "jobbridge_version"

_LOCK = sa.text("SELECT pg_advisory_lock(hashtextextended('jobbridge migrate', 0))")
_UNLOCK = sa.text("SELECT pg_advisory_unlock(hashtextextended('jobbridge migrate', 0))")
# Revision names are words: alembic's own 32 characters would be too few some day.
_CREATE_VERSION_TABLE = sa.text(
    "CREATE TABLE IF NOT EXISTS public.jobbridge_version "
    "(version_num varchar(255) CONSTRAINT jobbridge_version_pkc PRIMARY KEY)"
)


def migrate(database_url: str, revision: str = "heads") -> list[str]:
    """Bring the database up to `revision`; waits for another process that does so.

    Returns:
        The revisions it is at now, sorted.

    Raises:
        DatabaseUnavailable: Postgres cannot be reached.
        SchemaTooNew: The database knows revisions that this release does not.
        DatabaseError: A migration could not be done; the database is as before that one.
    """
    with _locked(database_url) as connection:
        config = _config(connection)
        with _explained():
            command.upgrade(config, revision)
        return _revisions(connection)


def downgrade(database_url: str, revision: str) -> list[str]:
    """Take the database down to `revision`: a name, `base` for everything, or `core@base` for one branch.

    Returns and raises as `migrate`.
    """
    with _locked(database_url) as connection:
        config = _config(connection)
        with _explained():
            command.downgrade(config, revision)
        return _revisions(connection)


def current(database_url: str) -> list[str]:
    """Name the revisions that the database is at, sorted; none if it has no tables of jobbridge."""
    with _connection(database_url) as connection:
        return _revisions(connection)


def heads() -> list[str]:
    """Name the newest revisions of all branches, sorted."""
    return sorted(ScriptDirectory(str(script_directory())).get_heads())


def script_directory() -> Path:
    """Find the migrations: beside the package in a checkout, inside it in the wheel."""
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "_migrations", package.parent / "migrations"):
        if (folder / "env.py").is_file():
            return folder
    raise NotMigrated(
        f"The migrations are missing from this installation: neither {package / '_migrations'} nor "
        f"{package.parent / 'migrations'} is there.",
        hint="Install jobbridge again.",
    )


def _config(connection: sa.Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(script_directory()).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


@contextmanager
def _connection(database_url: str) -> Iterator[sa.Connection]:
    url = sqlalchemy_url(database_url)
    engine = sa.create_engine(url, poolclass=sa.NullPool, connect_args={"connect_timeout": 10})
    try:
        connection = engine.connect()
    except exc.OperationalError as error:
        reason = str(error.orig).strip().splitlines()[0]
        where = f"Postgres database {url.database!r} at {url.host or 'the local socket'}"
        raise DatabaseUnavailable(f"{where} cannot be used: {reason}") from error
    with connection:
        yield connection


@contextmanager
def _locked(database_url: str) -> Iterator[sa.Connection]:
    with _connection(database_url) as connection:
        connection.execute(_LOCK)
        try:
            # Names without a schema mean public, whatever the role's search path says.
            connection.execute(sa.text("SET search_path TO public"))
            connection.execute(_CREATE_VERSION_TABLE)
            connection.commit()
            yield connection
        finally:
            connection.rollback()
            connection.execute(_UNLOCK)
            connection.commit()


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except CommandError as error:
        if "Can't locate revision" in str(error):
            raise SchemaTooNew(
                f"The database is at a revision that this release does not know: {error}"
            ) from error
        raise DatabaseError(f"The migration cannot be done: {error}") from error
    except exc.DBAPIError as error:
        reason = str(error.orig).strip().splitlines()[0]
        raise DatabaseError(
            f"A migration failed, and was rolled back: {reason}",
            hint="Correct what the message names, then run `jobbridge migrate` again.",
        ) from error


def _revisions(connection: sa.Connection) -> list[str]:
    context = MigrationContext.configure(
        connection, opts={"version_table": VERSION_TABLE, "version_table_schema": "public"}
    )
    return sorted(context.get_current_heads())
