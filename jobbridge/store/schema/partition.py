"""`migrate --partition-by`: whole tables become tables in partitions (decision 0035)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from jobbridge.errors import ConfigurationError, WorkersOfOlderReleases
from jobbridge.postgres.caller_connection import DriverConnection
from jobbridge.store.partitions.ahead import make_ahead
from jobbridge.store.partitions.convert import convert, has_many
from jobbridge.store.partitions.layout import layout_of, say_width
from jobbridge.store.partitions.spans import Width
from jobbridge.store.schema import conventions
from jobbridge.store.schema.migrate import LOCK_TIMEOUT, driver_of, locked, running_workers
from jobbridge.store.schema.partitioned import SERVE_SINCE, SINCE


def partition(
    database_url: str,
    width: str,
    *,
    since: timedelta = timedelta(0),
    also_if_many: bool = False,
    lock_timeout: timedelta = LOCK_TIMEOUT,
) -> list[str]:
    """Have `jobs` and `job_details` in partitions by time (decision 0035), up to some before their time.

    Where they are already, partitions that are missing are made, whatever is to be moved into them; another width is
    that of the next ones.

    Args:
        database_url: Its role must own the tables.
        width: `month`, `week` or `day`.
        since: The first partition is of so long ago, if no job is older.
        also_if_many: Copy more than some seconds' worth of rows, while those who send wait.
        lock_timeout: As for `migrate`.

    Returns:
        The names of all partitions but the default one, behind `jobs_`.

    Raises:
        WorkersOfOlderReleases: Some run, whose statements fit whole tables only.
        ConfigurationError: There are many jobs, and not `also_if_many`; or Citus has the tables.
        DatabaseError: Somebody's foreign key, view or publication hangs on the tables; nothing was changed.
    """
    with locked(database_url, lock_timeout) as connection:
        old = sorted(
            f"{name} ({release})" for name, release, knows in running_workers(connection) if knows < SINCE
        )
        if old:
            raise WorkersOfOlderReleases(f"Older workers run, and know whole tables only: {', '.join(old)}.")
        connection.rollback()
        with connection.begin():
            _convert_or_widen(driver_of(connection), Width(width), since=since, also_if_many=also_if_many)
            driver_of(connection).execute(SERVE_SINCE, {"since": SINCE})
        return _make_missing(driver_of(connection))


def _convert_or_widen(
    connection: DriverConnection, width: Width, *, since: timedelta, also_if_many: bool
) -> None:
    """Make them so, in the caller's transaction; where they are, the next partitions get this width."""
    if layout_of(connection) is not None:
        say_width(connection, width)
        return
    if conventions.is_distributed(connection):
        raise ConfigurationError(
            "Citus has distributed the tables, which are divided already.", hint="Leave out --partition-by."
        )
    if not also_if_many and has_many(connection):
        raise ConfigurationError(
            "There are many jobs: to copy them takes about a minute for a million, and who sends waits for it.",
            hint="Stop what sends, or have it wait, and run it with --force. docs/scale.md has figures.",
        )
    now = datetime.now(UTC)
    convert(connection, width, now, since=now - since)


def _make_missing(connection: DriverConnection) -> list[str]:
    """Make the partitions up to some before their time, in transactions of their own; gives all that there are."""
    layout = layout_of(connection)
    assert layout is not None
    make_ahead(connection, layout, datetime.now(UTC), most_strays=None)
    after = layout_of(connection)
    assert after is not None
    return [each.name for each in after.partitions]
