"""Which channels Google has, or may have: `psa.calendar_channels`.

    opening ─► open ─► closing ─► (no row)
       └────────────────▲

`opening` is committed before Google is asked for it; the row of a closing one goes after Google was told to stop it.
"""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from jobbridge.handlers.calendars.models import ChannelRow, OpenedChannel
from jobbridge.handlers.sql import Connection, rows_as, run

#: A job that began longer ago has ended: it has five minutes, and ten seconds to be stopped.
FRESH = timedelta(minutes=10)

# Of two jobs at once, one waits here, and then sees the other's channel.
LOCK = """
SELECT provider_id
FROM psa.calendar_providers
WHERE tenant = %(tenant)s AND provider_id = %(provider_id)s
FOR NO KEY UPDATE
"""

OF_PROVIDER = """
SELECT channel_id, status, resource_id, expires_at, job_id, since > now() - %(fresh)s::interval AS is_fresh, now()
FROM psa.calendar_channels
WHERE tenant = %(tenant)s AND provider_id = %(provider_id)s
ORDER BY since, channel_id
"""

OPENING = """
INSERT INTO psa.calendar_channels (tenant, channel_id, provider_id, status, job_id)
VALUES (%(tenant)s, %(channel_id)s, %(provider_id)s, 'opening', %(job_id)s)
"""

CLOSING = """
UPDATE psa.calendar_channels
SET status = 'closing'
WHERE tenant = %(tenant)s AND provider_id = %(provider_id)s AND status = %(status)s
"""

OPEN = """
UPDATE psa.calendar_channels
SET status = 'open', resource_id = %(resource_id)s, expires_at = %(expires_at)s
WHERE tenant = %(tenant)s AND channel_id = %(channel_id)s AND status = 'opening'
"""

FORGET = """
DELETE FROM psa.calendar_channels
WHERE tenant = %(tenant)s AND channel_id = %(channel_id)s AND status = 'closing'
"""


def channels_of(connection: Connection, tenant: str, provider_id: str) -> list[ChannelRow]:
    """Give a provider's channels, oldest first."""
    key = {"tenant": tenant, "provider_id": provider_id}
    return rows_as(ChannelRow, connection, OF_PROVIDER, {**key, "fresh": FRESH})


def lock_channels(connection: Connection, tenant: str, provider_id: str) -> list[ChannelRow]:
    """Give a provider's channels; until the transaction ends, nobody else opens one."""
    run(connection, LOCK, {"tenant": tenant, "provider_id": provider_id})
    return channels_of(connection, tenant, provider_id)


def note_opening(
    connection: Connection, tenant: str, provider_id: str, channel_id: UUID, job_id: str
) -> None:
    """Note that this job is about to open a channel. One that an earlier run began to open is to be closed."""
    key = {"tenant": tenant, "provider_id": provider_id}
    run(connection, CLOSING, {**key, "status": "opening"})
    run(connection, OPENING, {**key, "channel_id": channel_id, "job_id": job_id})


def give_up_opening(connection: Connection, tenant: str, provider_id: str) -> None:
    """Note that it may be open, and is to be closed."""
    run(connection, CLOSING, {"tenant": tenant, "provider_id": provider_id, "status": "opening"})


def note_open(
    connection: Connection, tenant: str, provider_id: str, channel_id: UUID, opened: OpenedChannel
) -> bool:
    """Note that it is open, and that the one before is to be closed.

    Returns:
        False: another run has taken it for dead meanwhile, and is closing it.
    """
    key = {"tenant": tenant, "provider_id": provider_id}
    run(connection, LOCK, key)
    if not any(
        one.channel_id == channel_id and one.status == "opening" for one in channels_of(connection, **key)
    ):
        return False
    run(connection, CLOSING, {**key, "status": "open"})
    parameters = {"resource_id": opened.resource_id, "expires_at": opened.expires_at}
    run(connection, OPEN, {"tenant": tenant, "channel_id": channel_id, **parameters})
    return True


def forget_channel(connection: Connection, tenant: str, channel_id: UUID) -> None:
    """Note that it is closed."""
    run(connection, FORGET, {"tenant": tenant, "channel_id": channel_id})
