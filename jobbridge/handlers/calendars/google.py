"""`verify-google-calendar-pubsub`: keep one watch channel open for each Google calendar.

Google cannot prolong a channel: a new one is opened, then the old one is stopped. Nor can it list them; but we choose
a channel's id, and what is needed besides to stop it, the resource's id, is the same for all channels of one calendar
and in the answer to each. So what was begun is written down first, and nothing leaks. Step by step, what if the
process dies in between, or the job comes twice?

- Dies after `opening` is committed, before or after Google opens the channel: the next run writes down that it is to
  be closed, opens another, and stops the first by its id and the second one's resource. If Google never had it, it says
  so (404), which is as good.
- Dies after the new one is `open` and the old one `closing`: the next run stops the old one.
- Dies after Google has stopped it, before its row is gone: it is stopped again (404).
- Two jobs at once: `opening` is written under a lock on the provider's row. The second leaves it to the first,
  and looks again later; after FRESH the first is taken for dead.

The old channel works until the new one does. No transaction is open while Google is asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

from jobbridge import FanOut, JobBridgeError, JobContext, job
from jobbridge.handlers.batches import RETRY, Context
from jobbridge.handlers.calendars.channels import (
    channels_of,
    forget_channel,
    give_up_opening,
    lock_channels,
    note_open,
    note_opening,
)
from jobbridge.handlers.calendars.errors import BusyElsewhere
from jobbridge.handlers.calendars.google_api import LIFETIME, GoogleCalendar
from jobbridge.handlers.calendars.models import CalendarProvider, ChannelRow, ProviderKind, VerifyChannels
from jobbridge.handlers.calendars.providers import (
    Endpoints,
    active_providers,
    http_client,
    renew_each,
    tenants_with,
)
from jobbridge.handlers.calendars.secrets import Secret
from jobbridge.handlers.sql import Connection
from jobbridge.handlers.tenants import over_tenants
from jobbridge.settings import Settings

#: Every hour, for each tenant.
SCHEDULE = "0 * * * *"


@job("verify-google-calendar-pubsub", retry=RETRY, schedule=SCHEDULE)
def verify_google_calendar_pubsub(ctx: JobContext, data: VerifyChannels) -> dict[str, Any] | FanOut:
    """Verify a tenant's Google calendars, and open new watch channels for those that end soon."""
    return over_tenants(ctx, data, tenants_with_google_calendars) or verify_channels(ctx, ctx.settings, data)


def tenants_with_google_calendars(connection: Connection) -> list[str]:
    """Give the tenants that have a Google calendar."""
    return tenants_with(connection, ProviderKind.GOOGLE)


def verify_channels(ctx: Context, settings: Settings, data: VerifyChannels) -> dict[str, Any]:
    """Verify each calendar, and renew each channel that ends within the look-ahead.

    Raises:
        CalendarsNotRenewed: Some could not be; the others are.
        PartlyRefused: As that, and another attempt would not change it.
    """
    with ctx.transaction() as connection:
        providers = active_providers(connection, ctx.tenant_id, ProviderKind.GOOGLE)
    with http_client() as http:
        watch = Watch(ctx=ctx, endpoints=Endpoints.of(settings), http=http, look_ahead=data.look_ahead)
        results = renew_each(ctx, settings, "verify", providers, watch.verify)
    ctx.progress(1, 1, f"{len(results)} calendars verified")
    return {"calendars": len(providers), "verified": dict(results)}


@dataclass(frozen=True, kw_only=True, slots=True)
class Watch:
    """Keeps the channels of one job's tenant."""

    ctx: Context
    endpoints: Endpoints
    http: Any
    look_ahead: timedelta

    def verify(self, provider: CalendarProvider, secret: Secret) -> dict[str, Any]:
        """Have one channel that lives long enough, and no other; give what had to be done for it."""
        urls = self.endpoints
        calendar = GoogleCalendar(
            self.http, provider, secret, google_url=urls.google_url, token_url=urls.google_token_url
        )
        calendar.verify()
        channel_id = self._begin(provider)
        if channel_id is not None:
            self._open(provider, calendar, secret, channel_id)
        self._close_others(provider, calendar)
        return {"action": "verified" if channel_id is None else "renewed"}

    def _begin(self, provider: CalendarProvider) -> UUID | None:
        """Give the id of a channel that is to be opened; None: there is one, and it lives long enough."""
        with self.ctx.transaction() as connection:
            channels = lock_channels(connection, self.ctx.tenant_id, provider.provider_id)
            self._refuse_if_busy(provider, channels)
            in_use = next((channel for channel in channels if channel.status == "open"), None)
            if in_use and in_use.expires_at and in_use.expires_at >= in_use.now + self.look_ahead:
                give_up_opening(connection, self.ctx.tenant_id, provider.provider_id)
                return None
            channel_id = uuid4()
            note_opening(connection, self.ctx.tenant_id, provider.provider_id, channel_id, self.ctx.job_id)
        return channel_id

    def _refuse_if_busy(self, provider: CalendarProvider, channels: Sequence[ChannelRow]) -> None:
        for channel in channels:
            if channel.status == "opening" and channel.is_fresh and channel.job_id != self.ctx.job_id:
                raise BusyElsewhere.about(provider.provider_id, channel.job_id)

    def _open(
        self, provider: CalendarProvider, calendar: GoogleCalendar, secret: Secret, channel_id: UUID
    ) -> None:
        tenant, provider_id = self.ctx.tenant_id, provider.provider_id
        with self.ctx.transaction() as connection:
            (row,) = (
                one for one in channels_of(connection, tenant, provider_id) if one.channel_id == channel_id
            )
        address = self.endpoints.notifications_of(tenant, provider)
        try:
            opened = calendar.watch(
                channel_id, address, secret.webhook_token(provider_id), row.now + LIFETIME
            )
        except JobBridgeError:
            with self.ctx.transaction() as connection:
                give_up_opening(connection, tenant, provider_id)
            raise
        with self.ctx.transaction() as connection:
            is_ours = note_open(connection, tenant, provider_id, channel_id, opened)
        if not is_ours:
            raise BusyElsewhere.about(provider_id, "another")

    def _close_others(self, provider: CalendarProvider, calendar: GoogleCalendar) -> None:
        with self.ctx.transaction() as connection:
            channels = channels_of(connection, self.ctx.tenant_id, provider.provider_id)
        known = [channel.resource_id for channel in channels if channel.resource_id]
        for channel in channels:
            if channel.status == "closing":
                # The resource is the calendar: each of its channels has the same.
                calendar.stop(channel.channel_id, channel.resource_id or known[0])
                with self.ctx.transaction() as connection:
                    forget_channel(connection, self.ctx.tenant_id, channel.channel_id)
