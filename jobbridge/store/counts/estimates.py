"""How many jobs there are as Postgres reckons it, from what it keeps anyway: nothing is read of the jobs."""

from __future__ import annotations

from typing import LiteralString

from jobbridge.store.database import Database

#: What was written since, and what the last ANALYZE or VACUUM saw; either may be off (a crash resets the first, the
#: second is of then). NULL: there was none yet.
ESTIMATES: LiteralString = """
SELECT sum(pg_stat_get_live_tuples(oid))::bigint, sum(nullif(reltuples, -1))::bigint
FROM pg_class
WHERE relkind = 'r' AND (
    oid = 'public.jobs'::regclass OR oid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = 'public.jobs'::regclass)
)
"""


def fewest_jobs(database: Database) -> int | None:
    """Give the lower of Postgres's two estimates of the rows in `jobs`; None: it has not looked yet."""
    row = database.run(lambda own: own.execute(ESTIMATES).fetchone())
    if row is None or None in row:
        return None
    live, seen = row
    return min(int(live), int(seen))
