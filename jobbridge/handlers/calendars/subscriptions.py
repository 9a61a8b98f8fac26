"""What we know of each provider's subscription: `psa.calendar_subscriptions`."""

from __future__ import annotations

from datetime import datetime, timedelta

from jobbridge.handlers.calendars.models import SubscriptionRow
from jobbridge.handlers.sql import Connection, one_as, rows, run

#: A job that began longer ago has ended: it has five minutes, and ten seconds to be stopped.
FRESH = timedelta(minutes=10)

# Also those of which nobody knows whether Graph has them.
DUE = """
SELECT provider.provider_id
FROM psa.calendar_providers AS provider
LEFT JOIN psa.calendar_subscriptions AS subscription USING (tenant, provider_id)
WHERE provider.tenant = %(tenant)s
  AND provider.kind = 'microsoft'
  AND provider.is_active
  AND (
      subscription.expires_at IS NULL
      OR subscription.expires_at < now() + %(look_ahead)s::interval
      OR subscription.making_job IS NOT NULL
  )
ORDER BY provider.provider_id
"""

BEGIN = """
INSERT INTO psa.calendar_subscriptions (tenant, provider_id)
VALUES (%(tenant)s, %(provider_id)s)
ON CONFLICT DO NOTHING
"""

# Locked, so that of two jobs one finds the other's name.
FIND = """
SELECT subscription_id, making_job, COALESCE(making_since > now() - %(fresh)s::interval, false) AS is_fresh, now()
FROM psa.calendar_subscriptions
WHERE tenant = %(tenant)s AND provider_id = %(provider_id)s
FOR NO KEY UPDATE
"""

MAKING = """
UPDATE psa.calendar_subscriptions
SET making_job = %(job_id)s, making_since = now()
WHERE tenant = %(tenant)s AND provider_id = %(provider_id)s
"""

# So long ago that whoever comes next may clean up at once.
ABANDON = """
UPDATE psa.calendar_subscriptions
SET making_since = 'epoch'
WHERE tenant = %(tenant)s AND provider_id = %(provider_id)s AND making_job = %(job_id)s
"""

KEEP = """
UPDATE psa.calendar_subscriptions
SET subscription_id = %(subscription_id)s, expires_at = %(expires_at)s, making_job = NULL, making_since = NULL
WHERE tenant = %(tenant)s AND provider_id = %(provider_id)s
"""


def due_providers(connection: Connection, tenant: str, look_ahead: timedelta) -> set[str]:
    """Give the providers whose subscription ends soon, is missing, or is in doubt."""
    found = rows(connection, DUE, {"tenant": tenant, "look_ahead": look_ahead})
    return {provider_id for (provider_id,) in found}


def lock_subscription(connection: Connection, tenant: str, provider_id: str) -> SubscriptionRow:
    """Give a provider's row, made if it is missing; until the transaction ends, nobody else has it."""
    key = {"tenant": tenant, "provider_id": provider_id}
    run(connection, BEGIN, key)
    row = one_as(SubscriptionRow, connection, FIND, {**key, "fresh": FRESH})
    assert row is not None  # the insert made it, or conflicted with it
    return row


def note_making(connection: Connection, tenant: str, provider_id: str, job_id: str) -> None:
    """Note that this job is about to ask for a new subscription."""
    run(connection, MAKING, {"tenant": tenant, "provider_id": provider_id, "job_id": job_id})


def abandon_making(connection: Connection, tenant: str, provider_id: str, job_id: str) -> None:
    """Note that this job does not ask any more; there may be a subscription that nobody knows."""
    run(connection, ABANDON, {"tenant": tenant, "provider_id": provider_id, "job_id": job_id})


def keep_subscription(
    connection: Connection, tenant: str, provider_id: str, subscription_id: str, expires_at: datetime
) -> None:
    parameters = {"tenant": tenant, "provider_id": provider_id, "subscription_id": subscription_id}
    run(connection, KEEP, {**parameters, "expires_at": expires_at})
