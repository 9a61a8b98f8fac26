"""What holds vacuum back: tables that are written all the time grow while somebody may still see their old rows."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final, LiteralString

from jobbridge.diagnosis.findings import Check, bad, duration, good, some

if TYPE_CHECKING:
    from jobbridge.app.application import Celery

#: Shorter transactions are no fault.
_LONG: Final = timedelta(minutes=5)

# Without the right to read all statistics (pg_monitor) a role sees only its own sessions. A slot has no age in time.
_HOLDERS: LiteralString = """
SELECT format('%%s (process %%s, %%s, %%s)', coalesce(nullif(application_name, ''), usename, backend_type), pid,
        coalesce(state, 'working'), coalesce(host(client_addr), 'local')),
    clock_timestamp() - xact_start AS age
FROM pg_stat_activity
WHERE (datname = current_database() OR backend_type = 'walsender')
    AND (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL)
    AND backend_type <> 'autovacuum worker' AND pid <> pg_backend_pid()
    AND xact_start <= clock_timestamp() - %(long)s::interval
UNION ALL
SELECT format('prepared transaction %%L of %%s', gid, owner), clock_timestamp() - prepared
FROM pg_prepared_xacts
WHERE database = current_database() AND prepared <= clock_timestamp() - %(long)s::interval
UNION ALL
SELECT format('replication slot %%s, %%s transactions behind', slot_name, age(xmin)), NULL
FROM pg_replication_slots
WHERE NOT active AND xmin IS NOT NULL
ORDER BY 2 DESC NULLS LAST
"""


def check_vacuum(app: Celery, *, long: timedelta = _LONG) -> Check:
    """Name transactions that have been open for `long`, and what else keeps dead rows from being removed."""
    rows = app.database.run(lambda own: own.execute(_HOLDERS, {"long": long}).fetchall())
    if not rows:
        return good("vacuum", "no transaction holds it back")
    found = [who if age is None else f"{who} has a transaction open for {duration(age)}" for who, age in rows]
    return bad(
        "vacuum",
        f"it is held back, and tables grow: {some(found)}",
        "End it: `SELECT pg_terminate_backend(PROCESS)`, ROLLBACK PREPARED, pg_drop_replication_slot; "
        "idle_in_transaction_session_timeout keeps it from coming again.",
    )
