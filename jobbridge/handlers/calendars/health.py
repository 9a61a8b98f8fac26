"""How each provider does: `psa.calendar_health`.

healthy ──(FAILING_AFTER failures in a row)──► failing
   ▲                                              │
   └───────────────(one success)──────────────────┘
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from jobbridge.handlers.calendars.errors import LONGEST_WAIT, RateLimited, TryAgainLater
from jobbridge.handlers.sql import Connection, one, run

FAILING_AFTER = 3

#: The worker's clock and the database's may differ by that much.
_TOLERANCE = timedelta(seconds=2)

SUCCEEDED = """
INSERT INTO psa.calendar_health AS health (tenant, provider_id, last_succeeded_at)
VALUES (%(tenant)s, %(provider_id)s, now())
ON CONFLICT (tenant, provider_id) DO UPDATE
SET status = 'healthy', failures_in_a_row = 0, last_error = NULL, last_failed_job = NULL, paused_until = NULL,
    last_succeeded_at = now()
"""

# A further attempt of the same job is the same failure.
FAILED = """
INSERT INTO psa.calendar_health AS health (tenant, provider_id, failures_in_a_row, last_error, last_failed_job,
    last_failed_at, paused_until)
VALUES (%(tenant)s, %(provider_id)s, 1, %(error)s, %(job_id)s, now(), now() + %(pause)s::interval)
ON CONFLICT (tenant, provider_id) DO UPDATE
SET failures_in_a_row = health.failures_in_a_row
        + CASE WHEN health.last_failed_job IS DISTINCT FROM %(job_id)s THEN 1 ELSE 0 END,
    status = CASE
        WHEN health.failures_in_a_row
            + CASE WHEN health.last_failed_job IS DISTINCT FROM %(job_id)s THEN 1 ELSE 0 END >= %(failing_after)s
        THEN 'failing' ELSE health.status END,
    last_error = %(error)s, last_failed_job = %(job_id)s, last_failed_at = now(),
    paused_until = now() + %(pause)s::interval
"""

PAUSE = """
SELECT paused_until, now()
FROM psa.calendar_health
WHERE tenant = %(tenant)s AND provider_id = %(provider_id)s
"""


def note_success(connection: Connection, tenant: str, provider_id: str) -> None:
    run(connection, SUCCEEDED, {"tenant": tenant, "provider_id": provider_id})


def note_failure(
    connection: Connection, tenant: str, provider_id: str, job_id: str, error: str, pause: timedelta | None
) -> None:
    """Note that a provider was not renewed.

    Args:
        error: Without secrets.
        pause: For how long the provider wants not to be asked.
    """
    parameters = {
        "tenant": tenant,
        "provider_id": provider_id,
        "job_id": job_id,
        "error": error,
        "pause": pause,
        "failing_after": FAILING_AFTER,
    }
    run(connection, FAILED, parameters)


def refuse_while_paused(connection: Connection, tenant: str, provider_id: str) -> None:
    """Pass unless the provider wants not to be asked now.

    Raises:
        RateLimited: For a while.
        TryAgainLater: For long.
    """
    found = one(connection, PAUSE, {"tenant": tenant, "provider_id": provider_id})
    if found is None or found[0] is None:
        return
    now: datetime = found[1]
    wait: timedelta = found[0] - now
    if wait > LONGEST_WAIT:
        raise TryAgainLater.about(repr(provider_id), wait, now.astimezone(UTC))
    if wait > _TOLERANCE:
        raise RateLimited.about(repr(provider_id), wait)
