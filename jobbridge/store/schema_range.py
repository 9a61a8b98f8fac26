"""Which releases a database serves, and which databases a release works on (decision 0016).

A release says from which revision on its statements work, and up to which it knows the migrations. The database says at
which revision it is, and which revision a release must know to live with it: an expanding migration leaves that as it
was, a contracting one moves it on. So neighbouring releases serve one database, and an old one hears from the database
itself when its time is over.

`public.jobbridge_version` says so, one row a branch. Its first column is all that release 0.1.0 reads, and it takes
nothing there but its own newest: so it is told that one for as long as the database serves it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg
from psycopg.rows import tuple_row

from jobbridge.errors import NotMigrated, SchemaTooNew
from jobbridge.postgres.caller_connection import DriverConnection, cursor_on
from jobbridge.postgres.schema.names import PUBLIC
from jobbridge.postgres.schema.rendering import schema_of

#: What 0.1.0 knows, by branch; all that it may be told of a database that serves it.
KNOWN_TO_0_1_0 = {"core": "0014_relatives", "psa": "psa_0003_assets"}

# As jsonb, for a database that 0.1.0 has migrated lacks the columns that came later.
_SELECT_VERSIONS: LiteralString = "SELECT to_jsonb(version) FROM public.jobbridge_version AS version"

# By their names: what is in them, this role may not be allowed to see.
_ELSEWHERE: LiteralString = """
SELECT nspname FROM pg_namespace AS place
WHERE nspname <> %(schema)s AND EXISTS (
    SELECT FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid
    WHERE relnamespace = place.oid AND relname = 'jobbridge_version' AND relkind = 'r' AND attname = 'version_num'
) AND EXISTS (SELECT FROM pg_class WHERE relnamespace = place.oid AND relname = 'job_keys')
ORDER BY nspname
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemaRange:
    """The revisions of the core branch that a release works with. They begin with four digits, and sort by them.

    Attributes:
        oldest: Its statements work from here on.
        newest: It knows the migrations up to here. Later ones are fine while the database says so.
    """

    oldest: str
    newest: str


#: Of this release. A test compares `newest` with `migrations/`; `oldest` follows where a statement needs what is new.
THIS_RELEASE = SchemaRange(oldest="0030_batches", newest="0032_rules_shared")


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemaVersion:
    """Where one branch of a database is.

    Attributes:
        revision: The newest migration that it has.
        serves_since: The revision that a release must know; None: any release will do.
    """

    revision: str
    serves_since: str | None = None

    @property
    def branch(self) -> str:
        return "core" if self.revision[:4].isdigit() else self.revision.partition("_")[0]

    @property
    def told_to_0_1_0(self) -> str:
        """What stands in the column that 0.1.0 reads, also as that of its own migrations."""
        known = KNOWN_TO_0_1_0.get(self.branch, self.revision)
        is_served = self.serves_since is None or self.serves_since <= known
        return min(self.revision, known) if is_served else self.revision


def read_versions(connection: DriverConnection) -> list[SchemaVersion]:
    """Read where each branch of the database is; nothing if it has no tables of jobbridge.

    Raises:
        psycopg.errors.UndefinedTable: There is not even the table that says so.
    """
    # A caller's connection may make other rows.
    with cursor_on(connection, tuple_row) as cursor:
        rows = cursor.execute(_SELECT_VERSIONS).fetchall()
        # Django has its connections give jsonb as text.
        return [version_of(json.loads(row) if isinstance(row, str) else row) for (row,) in rows]


def check_revision(connection: DriverConnection) -> None:
    """Make sure that this release and the tables go together.

    Raises:
        NotMigrated: They are missing, or older than this release works on.
        SchemaTooNew: They no longer serve it.
    """
    try:
        versions = read_versions(connection)
    except psycopg.errors.UndefinedTable:
        versions = []
    error = misfit(versions, connection.info.dbname)
    if error is not None:
        raise error if versions else _nothing_there(connection, error)


def places_elsewhere(connection: DriverConnection) -> list[str]:
    """Name the other schemas of the database that have our tables."""
    with cursor_on(connection, tuple_row) as cursor:
        return [name for (name,) in cursor.execute(_ELSEWHERE, {"schema": schema_of(connection)}).fetchall()]


def _nothing_there(connection: DriverConnection, error: Exception) -> Exception:
    database, schema = connection.info.dbname, schema_of(connection)
    try:
        others = places_elsewhere(connection)
    except psycopg.Error:  # the caller's transaction bears no more statements
        others = []
    if others:
        return NotMigrated(
            f"The schema {schema!r} of the database {database!r} has no tables of jobbridge: "
            f"they are in {others[0]!r}.",
            hint=f"Set JOBBRIDGE_SCHEMA={others[0]}.",
        )
    if schema != PUBLIC:
        return NotMigrated(f"The schema {schema!r} of the database {database!r} has no tables of jobbridge.")
    return error


def misfit(
    versions: Iterable[SchemaVersion], database: str, release: SchemaRange = THIS_RELEASE
) -> NotMigrated | SchemaTooNew | None:
    """Say why a release and a database do not go together; None: they do."""
    core = next((version for version in versions if version.branch == "core"), None)
    if core is None:
        return NotMigrated(f"The database {database!r} has no tables of jobbridge.")
    if core.revision < release.oldest:
        return NotMigrated(
            f"The database {database!r} is at {core.revision}, this release needs {release.oldest}."
        )
    if core.serves_since is not None and release.newest < core.serves_since:
        return SchemaTooNew(
            f"The database {database!r} is at {core.revision} and serves releases that know {core.serves_since}; "
            f"this one knows {release.newest}."
        )
    return None


def version_of(row: dict[str, Any]) -> SchemaVersion:
    """Read a row of `jobbridge_version`, whichever release made it."""
    told, revision = row["version_num"], row.get("revision") or row["version_num"]
    branch = SchemaVersion(revision=told).branch
    # Below the newest that 0.1.0 knows, its own `migrate` may have been at work, which writes this column alone.
    is_certain = told < KNOWN_TO_0_1_0.get(branch, "")
    return SchemaVersion(
        revision=told if is_certain else max(told, revision),
        serves_since=None if is_certain else row.get("serves_since"),
    )
