"""Whether partitions are there before their time, and the default one holds what belongs there and no more."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from psycopg import sql

from jobbridge.diagnosis.findings import Check, bad, good
from jobbridge.postgres.schema.rendering import qualified
from jobbridge.store.partitions.layout import DEFAULT, detached, layout_of
from jobbridge.store.partitions.spans import end_of

if TYPE_CHECKING:
    from jobbridge.app.application import Celery

#: Jobs in the default partition: it is read while it is locked, for each partition that is made.
MANY: Final = 1_000_000

_OWNER = "Its role must own the tables (GRANT OWNER TO ROLE for that of the workers)."


def check_partitions(app: Celery, *, now: datetime | None = None, many: int = MANY) -> list[Check]:
    """Look at the partitions, if there are any.

    Args:
        app: Whose.
        now: An aware instant; by default the present.
        many: So many jobs in the default partition are too many, as Postgres estimates them.
    """
    at = now or datetime.now(UTC)
    with app.database.connection() as connection:
        layout = layout_of(connection)
        if layout is None:
            return []
        left = detached(connection)
        estimate = sql.SQL("SELECT reltuples::bigint FROM pg_class WHERE oid = {}::regclass").format(
            sql.Literal(qualified(connection, f"jobs_{DEFAULT}"))
        )
        row = connection.execute(estimate).fetchone() if layout.has_default else None
    if not layout.has_default:
        return [
            bad(
                "partitions",
                "there is no default partition: a job whose id is of no partition's time cannot be sent",
                "ATTACH one again: CREATE TABLE public.jobs_default PARTITION OF public.jobs DEFAULT; likewise "
                "job_details_default.",
            )
        ]
    if layout.ends_at is None or layout.ends_at <= end_of(layout.width, at):
        until = "there is none" if layout.ends_at is None else f"they end at {layout.ends_at:%Y-%m-%d}"
        return [
            bad(
                "partitions",
                f"the next ones are missing ({until}): new jobs go to the default one",
                f"Run `jobbridge migrate --partition-by {layout.width}`; a worker's pruner makes them, too. {_OWNER}",
            )
        ]
    if row is not None and row[0] > many:
        return [
            bad(
                "partitions",
                f"jobs_{DEFAULT} has about {row[0]:,} jobs, whose ids are of no partition's time",
                "Let JobBridge make ids, or make them as UUIDs of version 7; `jobbridge migrate --partition-by "
                f"{layout.width}` moves what has a place elsewhere.",
            )
        ]
    if left:
        return [
            bad(
                "partitions",
                f"{len(left)} were detached and not dropped yet, the oldest is jobs_{left[0].name}",
                f"A worker's pruner, or `jobbridge maintain`, goes on with it within ten minutes. {_OWNER}",
            )
        ]
    return [
        good("partitions", f"{len(layout.partitions)} by {layout.width}, up to {layout.ends_at:%Y-%m-%d}")
    ]
