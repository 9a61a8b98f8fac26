"""The services' last runs, and who may run them: one process at a time for each, by a lock on its name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, LiteralString

from psycopg.types.json import Jsonb

from jobbridge.postgres.caller_connection import DriverConnection
from jobbridge.store.database import Database
from jobbridge.store.fetch import all_rows
from jobbridge.store.values import as_text

STARTED: LiteralString = """
INSERT INTO public.job_services AS service (name, holder, last_started)
VALUES (%(name)s, %(holder)s, clock_timestamp())
ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, last_started = excluded.last_started
"""

#: Counters count up, whoever leads. Most runs do nothing, and are not noted when they begin.
FINISHED: LiteralString = """
UPDATE public.job_services AS service
SET last_started = greatest(last_started, clock_timestamp() - %(took)s::interval),
    last_finished = clock_timestamp(),
    last_error = NULL,
    counters = service.counters || coalesce((
        SELECT jsonb_object_agg(key, value::bigint + coalesce((service.counters ->> key)::bigint, 0))
        FROM jsonb_each_text(%(counters)s)
    ), '{}')
WHERE name = %(name)s
"""

FAILED: LiteralString = """
UPDATE public.job_services
SET last_error = %(error)s, failed_at = clock_timestamp()
WHERE name = %(name)s
"""

LIST: LiteralString = """
SELECT name, holder, last_started, last_finished, last_error, failed_at, counters, now() - last_started > interval '1
    minute' AND last_finished IS DISTINCT FROM greatest(last_started, last_finished) AND failed_at IS DISTINCT FROM
    greatest(last_started, failed_at) AS is_hanging FROM public.job_services ORDER BY name
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class ServiceRow:
    """The last run of a service.

    Attributes:
        holder: The worker, or `jobbridge maintain`, that ran it.
        last_error: Of the last run; None if that went well.
        counters: What it did since the database was made.
        is_hanging: Its last run began more than a minute ago and has not ended.
    """

    name: str
    holder: str | None
    last_started: datetime | None
    last_finished: datetime | None
    last_error: str | None
    failed_at: datetime | None
    counters: Mapping[str, int]
    is_hanging: bool


def note_start(connection: DriverConnection, name: str, holder: str) -> None:
    """Write that a run begins; fails when the session, and with it the lead, is lost."""
    connection.execute(STARTED, {"name": name, "holder": holder})


def note_end(
    connection: DriverConnection, name: str, counters: Mapping[str, int], *, took: timedelta = timedelta()
) -> None:
    """Write that it ended well, and what it did; fails when the session, and with it the lead, is lost."""
    connection.execute(FINISHED, {"name": name, "counters": Jsonb(dict(counters)), "took": took})


def note_failure(connection: DriverConnection, name: str, error: str) -> None:
    """Write why it did not end well."""
    connection.execute(FAILED, {"name": name, "error": as_text(error)})


def services(database: Database) -> Sequence[ServiceRow]:
    """Give the last run of each service that ever ran here."""

    def make(**columns: Any) -> ServiceRow:
        return ServiceRow(**columns | {"is_hanging": bool(columns["is_hanging"])})

    return database.run(lambda own: all_rows(own, make, LIST))
