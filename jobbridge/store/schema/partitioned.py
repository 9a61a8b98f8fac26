"""Whether the job tables are in partitions (decision 0035), and which releases know such."""

from __future__ import annotations

from typing import Final, LiteralString

from jobbridge.postgres.caller_connection import DriverConnection

#: Releases that do not know this revision name the columns of keys that are others in partitions.
SINCE: Final = "0030_batches"

SERVE_SINCE: LiteralString = """
UPDATE public.jobbridge_version
SET serves_since = greatest(serves_since, %(since)s), version_num = revision
WHERE revision ~ '^[0-9]'
"""

_IS_SO: LiteralString = "SELECT relkind = 'p' FROM pg_class WHERE oid = to_regclass('public.jobs')"


def is_so(connection: DriverConnection) -> bool:
    """Whether they are."""
    return connection.execute(_IS_SO).fetchone() == (True,)


def served_since(connection: DriverConnection, since: str | None) -> str | None:
    """Give what the migrations say, or what partitions ask for, if that is later; of the branch of the jobs."""
    if since is None or not since[:1].isdigit() or not is_so(connection):
        return since
    return max(since, SINCE)
