"""Make and change the tables: alembic, from the checkout or from the wheel."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.script.revision import RevisionError
from alembic.util import CommandError
from sqlalchemy import exc

from jobbridge.errors import DatabaseError, NotMigrated, SchemaTooNew, WorkersOfOlderReleases, WorkersRun
from jobbridge.postgres import locks
from jobbridge.postgres.caller_connection import DriverConnection
from jobbridge.postgres.connect import Connection, connect
from jobbridge.postgres.schema.rendering import schema_of, speak
from jobbridge.postgres.target import Target
from jobbridge.store.partitions.convert import make_whole
from jobbridge.store.schema import conventions, partitioned, place
from jobbridge.store.schema.name_clashes import check_books_are_ours, check_names_are_free
from jobbridge.store.schema_range import KNOWN_TO_0_1_0, THIS_RELEASE, SchemaVersion, misfit, read_versions
from jobbridge.store.workers.queue_pauses import TELL
from jobbridge.store.workers.workers import RELEASES

#: Where alembic keeps what it has done. Written anew each time, from what `jobbridge_version` says (schema_range).
ALEMBIC_TABLE = "jobbridge_revisions"

#: A migration that waits for a lock makes everybody else wait behind it.
LOCK_TIMEOUT = timedelta(seconds=5)

# Asked for again and again, and not waited for: a statement that waits has a snapshot, which CREATE INDEX CONCURRENTLY
# in the process that has the lock would wait for.
_TRY_LOCK = sa.text(f"SELECT pg_try_advisory_lock({locks.MIGRATE})")
_UNLOCK = sa.text(f"SELECT pg_advisory_unlock({locks.MIGRATE})")
_TRY_AGAIN_AFTER = 0.2  # seconds

_SET_UP = sa.text(
    "SELECT set_config('lock_timeout', :lock_timeout, false), set_config('search_path', 'public', false)"
)

_HAS_TABLES = sa.text("SELECT to_regclass('public.jobbridge_revisions') IS NOT NULL")
# Revision names are words: alembic's own 32 characters would be too few some day.
_CREATE_TABLES: LiteralString = """
CREATE TABLE IF NOT EXISTS public.jobbridge_version (
    version_num varchar(255) CONSTRAINT jobbridge_version_pkc PRIMARY KEY
);
ALTER TABLE public.jobbridge_version
    ADD COLUMN IF NOT EXISTS revision varchar(255), ADD COLUMN IF NOT EXISTS serves_since varchar(255);
CREATE TABLE public.jobbridge_revisions (version_num varchar(255) PRIMARY KEY);
"""
_INSERT_REVISIONS: LiteralString = """
INSERT INTO public.jobbridge_revisions (version_num) SELECT unnest(%(revisions)s::text[])
"""
_INSERT_VERSION: LiteralString = """
INSERT INTO public.jobbridge_version (version_num, revision, serves_since)
VALUES (%(told)s, %(revision)s, %(serves_since)s)
"""


def migrate(
    database_url: str,
    revision: str = "heads",
    *,
    lock_timeout: timedelta = LOCK_TIMEOUT,
    ends_older_workers: bool = False,
) -> list[str]:
    """Bring the database up to `revision`; waits for another process that does so.

    Where a later release has done more, and the tables serve this one still, nothing is left to do: so its containers
    start again while they are being replaced.

    Args:
        database_url: Any form of URL; its role must own the tables, or be allowed to create them.
        revision: How far.
        lock_timeout: For how long to wait for a lock on a table, and make others wait behind.
        ends_older_workers: Also where the tables would stop serving workers that run now.

    Returns:
        The revisions it is at now, sorted.

    Raises:
        DatabaseUnavailable: Postgres cannot be reached.
        SchemaTooNew: A later release has migrated the database, and it no longer serves this one.
        WorkersOfOlderReleases: Some run that the tables would stop serving; nothing was changed.
        DatabaseError: A migration could not be done; the database is as before that one, or goes on from where it
            was when it is migrated again.
    """
    with locked(database_url, lock_timeout, upgrade_to=revision) as connection:
        if not _is_ahead_and_serves_us(connection):
            if not ends_older_workers:
                _keep_serving(connection, revision)
            command.upgrade(_config(connection), revision)
        return _revisions(connection)


def downgrade(
    database_url: str, revision: str, *, lock_timeout: timedelta = LOCK_TIMEOUT, ends_workers: bool = False
) -> list[str]:
    """Take the database down to `revision`: a name, `base` for everything, or `core@base` for one branch.

    Takes, returns and raises as `migrate`, and:

    Raises:
        WorkersRun: Some do, whose tables would be changed beneath them, and not `ends_workers`; nothing was changed.
    """
    with locked(database_url, lock_timeout) as connection:
        running = [] if ends_workers else sorted(name for name, _, _ in running_workers(connection))
        if running:
            raise WorkersRun(
                f"Workers run on these tables, and would lose what {revision} does not have: {', '.join(running)}."
            )
        make_whole(driver_of(connection))  # earlier revisions know no partitions
        driver_of(connection).commit()
        command.downgrade(_config(connection), revision)
        return _revisions(connection)


def set_row_level_security(
    database_url: str,
    *,
    is_on: bool,
    service_roles: Sequence[str] = (),
    lock_timeout: timedelta = LOCK_TIMEOUT,
) -> list[str]:
    """Let a role see only the rows of the tenant that its session names, or switch that off.

    Args:
        database_url: Its role must own the tables; it goes on seeing all tenants.
        is_on: On or off; on once more changes the roles.
        service_roles: Further roles that see all tenants: those of the workers.
        lock_timeout: As for `migrate`.

    Returns:
        The roles that see all tenants; none if it is off.

    Raises:
        ConfigurationError: There is no role of that name.
        DatabaseError: Postgres refused it; all is as it was.
    """
    with locked(database_url, lock_timeout) as connection, connection.begin():
        driver = driver_of(connection)
        if is_on:
            return conventions.separate(driver, service_roles)
        conventions.unite(driver)
        return []


def distribute(database_url: str, *, lock_timeout: timedelta = LOCK_TIMEOUT) -> list[str]:
    """Distribute the tables by tenant, where Citus is; gives those that now are. Later tables follow by themselves."""
    with locked(database_url, lock_timeout) as connection, connection.begin():
        return conventions.distribute(driver_of(connection))


def current(database_url: str) -> list[str]:
    """Name the revisions that the database is at, sorted; none if it has no tables of jobbridge."""
    with _connection(database_url) as connection:
        return _revisions(connection)


def older_workers(database_url: str) -> dict[str, bool]:
    """Name the workers of older releases that run now, each with whether the tables serve it."""
    with _connection(database_url) as connection:
        since = max((each.serves_since or "" for each in _versions(connection)), default="")
        return {
            f"{name} ({release})": knows >= since
            for name, release, knows in running_workers(connection)
            if knows < THIS_RELEASE.newest
        }


def heads() -> list[str]:
    """Name the newest revisions of all branches, sorted."""
    return sorted(_scripts(script_directory()).get_heads())


def serves_since(revision: str) -> str | None:
    """Name the revision that a release must know to live with this one; None: any release will do."""
    for script in _scripts(script_directory()).iterate_revisions(revision, "base"):
        since: str | None = getattr(script.module, "serves_since", None)
        if since is not None:
            return since
    return None


def _is_ahead_and_serves_us(connection: sa.Connection) -> bool:
    versions = _versions(connection)
    known = {script.revision for script in _scripts(script_directory()).walk_revisions()}
    is_ahead = not known.issuperset(version.revision for version in versions)
    return is_ahead and misfit(versions, connection.engine.url.database or "") is None


def _keep_serving(connection: sa.Connection, revision: str) -> None:
    """Refuse if a worker that runs now could not live with what is to be done."""
    pending = _pending(connection, revision)
    since = max((getattr(script.module, "serves_since", "") for script in pending), default="")
    ended = {f"{name} ({release})" for name, release, knows in running_workers(connection) if knows < since}
    if ended:
        raise WorkersOfOlderReleases(
            f"The tables would serve only releases that know {since}, and older workers run: "
            f"{', '.join(sorted(ended))}."
        )


def _pending(connection: sa.Connection, revision: str) -> list[Any]:
    """Give the scripts that are still to be run; none where the way up itself will say what is wrong."""
    scripts = _scripts(script_directory())
    current = tuple(_revisions(connection))
    try:
        return list(scripts.iterate_revisions(revision, current or "base", implicit_base=True))
    except RevisionError:
        return []


def running_workers(connection: sa.Connection) -> list[tuple[str, str, str]]:
    """Name the workers that run now, each with its release and the newest revision that this knows."""
    driver = driver_of(connection)
    if driver.execute("SELECT to_regclass('public.job_workers')").fetchone() == (None,):
        return []
    rows = driver.execute(RELEASES, {"workers": locks.WORKERS}).fetchall()
    return [(name, release or "0.1.0", knows or KNOWN_TO_0_1_0["core"]) for name, release, knows in rows]


def script_directory() -> Path:
    """Find the migrations: beside the package in a checkout, inside it in the wheel."""
    package = Path(__file__).resolve().parents[2]
    for folder in (package / "_migrations", package.parent / "migrations"):
        if (folder / "env.py").is_file():
            return folder
    raise NotMigrated(
        f"The migrations are missing from this installation: neither {package / '_migrations'} nor "
        f"{package.parent / 'migrations'} is there.",
        hint="Install jobbridge again.",
    )


@functools.cache
def _scripts(folder: Path) -> ScriptDirectory:
    """Give the migrations of a folder: alembic runs every file of it again for each directory that it opens."""
    return ScriptDirectory(str(folder))


def _config(connection: sa.Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(script_directory()).replace("%", "%%"))
    config.attributes["connection"] = connection
    config.attributes["on_version_apply"] = _on_version_apply
    return config


def _on_version_apply(*, ctx: MigrationContext, step: Any, heads: set[str], **_: Any) -> None:
    """Within the transaction of each step: the rules of this database hold for what it made, and workers hear of it."""
    if ctx.connection is None:
        return
    driver = driver_of(ctx.connection)
    if step.is_upgrade:
        conventions.conform(driver)
    driver.execute("DELETE FROM public.jobbridge_version")
    for head in heads:
        served = partitioned.served_since(driver, serves_since(head))
        version = SchemaVersion(revision=head, serves_since=served)
        row = {"told": version.told_to_0_1_0, "revision": head, "serves_since": version.serves_since}
        driver.execute(_INSERT_VERSION, row)
    driver.execute(TELL)


def driver_of(connection: sa.Connection) -> DriverConnection:
    driver: DriverConnection = connection.connection.driver_connection  # type: ignore[assignment]  # the dialect's own
    return driver


@contextmanager
def _connection(database_url: str) -> Iterator[sa.Connection]:
    target = Target.of(database_url)

    def opened() -> Connection:  # one process migrates at a time: the session holds a lock
        connection = connect(target, "migrate", keeps_session=True, must_write=True)
        connection.autocommit = False
        speak(connection, target.schema, says_all=True)
        return connection

    engine = sa.create_engine(target.sqlalchemy_url(), poolclass=sa.NullPool, creator=opened)
    with engine.connect() as connection:
        yield connection


@contextmanager
def locked(
    database_url: str, lock_timeout: timedelta, *, upgrade_to: str | None = None
) -> Iterator[sa.Connection]:
    with _connection(database_url) as connection:
        while not connection.execute(_TRY_LOCK).scalar_one():
            connection.rollback()
            time.sleep(_TRY_AGAIN_AFTER)
        try:
            with _explained(connection):
                # Names without a schema mean ours, whatever the role's search path says.
                connection.execute(
                    _SET_UP, {"lock_timeout": f"{lock_timeout / timedelta(milliseconds=1):.0f}"}
                )
                connection.commit()
                place.check_only_place(driver_of(connection))
                if upgrade_to is not None:
                    check_books_are_ours(driver_of(connection))
                    pending = _pending(connection, upgrade_to)
                    driver_of(connection).rollback()  # where our tables are missing, reading them is an error
                    check_names_are_free(driver_of(connection), pending)
                place.make_schema(driver_of(connection))
                _prepare(connection)
                connection.commit()
                yield connection
        finally:
            connection.rollback()
            connection.execute(_UNLOCK)
            connection.commit()


@contextmanager
def _explained(connection: sa.Connection) -> Iterator[None]:
    try:
        yield
    except CommandError as error:
        if "Can't locate revision" in str(error):
            raise SchemaTooNew(
                f"The database is at a revision that this release does not know: {error}"
            ) from error
        raise DatabaseError(f"The migration cannot be done: {error}") from error
    except exc.DBAPIError as error:
        raise _failure(connection, error.orig) from error
    except psycopg.Error as error:
        raise _failure(connection, error) from error


def _failure(connection: sa.Connection, error: BaseException | None) -> DatabaseError:
    reason = str(error).strip().splitlines()[0]
    again = "then run `jobbridge migrate` again."
    match error:
        case psycopg.errors.LockNotAvailable():
            return DatabaseError(
                f"A migration did not get the lock on a table that it needs: {reason}.{_holders(connection)}",
                hint=f"Wait until that transaction ends, or end it, {again}",
            )
        case psycopg.errors.InsufficientPrivilege():
            role, schema = connection.engine.url.username, schema_of(driver_of(connection))
            return DatabaseError(
                f"The role {role!r} may not migrate this database: {reason}.",
                hint="Migrate with the role that owns the tables, or on a fresh database grant it: "
                f"GRANT CREATE ON SCHEMA {schema} TO {role}; GRANT CREATE ON DATABASE … TO {role}.",
            )
    return DatabaseError(
        f"A migration failed: {reason}. What it had not finished was rolled back.",
        hint=f"Correct what the message names, {again}",
    )


def _holders(connection: sa.Connection) -> str:
    """Say who has locks now; nothing if they are gone, or this role may not see them."""
    connection.rollback()
    rows = connection.exec_driver_sql(place.HOLDERS).all()
    return "".join(
        f" Process {pid} ({name}, {state}) has one on {table} since {since:%H:%M:%S}."
        for pid, name, state, since, table in rows
        if since is not None
    )


def _prepare(connection: sa.Connection) -> None:
    """Make the two tables, and let alembic know what is done: also by 0.1.0, whose alembic has the other one."""
    driver = driver_of(connection)
    if not connection.execute(_HAS_TABLES).scalar_one():
        driver.execute(_CREATE_TABLES)
    driver.execute("DELETE FROM public.jobbridge_revisions")
    driver.execute(_INSERT_REVISIONS, {"revisions": _revisions(connection)})


def _revisions(connection: sa.Connection) -> list[str]:
    return sorted(version.revision for version in _versions(connection))


def _versions(connection: sa.Connection) -> list[SchemaVersion]:
    try:
        return read_versions(driver_of(connection))
    except psycopg.errors.UndefinedTable:
        return []
