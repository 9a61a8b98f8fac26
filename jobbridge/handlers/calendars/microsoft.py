"""`renew-microsoft-calendar-webhooks`: keep each Graph subscription alive.

A subscription that ends soon is prolonged; one that Graph does not know any more is made anew. Step by step, what if
the process dies in between, or the job comes twice?

- Dies before or after Graph prolongs one, before that is kept: it is prolonged once more, which changes nothing.
- Dies after `making_job` is committed, before Graph is asked: the next run asks Graph which subscriptions send to this
  provider's address, finds none, and makes one.
- Dies after Graph has made one, before its id is kept: the next run finds it by its address, and keeps it. Should there
  be more than one, the others are deleted.
- Dies after the id is kept: nothing is to be done.
- Two jobs at once: `making_job` is set under a lock on the row. The second one leaves the provider to the first, and
  looks again later; after FRESH the first is taken for dead.

No transaction is open while Graph is asked.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from jobbridge import FanOut, JobBridgeError, JobContext, job
from jobbridge.handlers.batches import RETRY, Context
from jobbridge.handlers.calendars.errors import BusyElsewhere
from jobbridge.handlers.calendars.graph import LIFETIME, Graph
from jobbridge.handlers.calendars.health import note_success
from jobbridge.handlers.calendars.models import (
    CalendarProvider,
    ProviderKind,
    RenewSubscriptions,
    SubscriptionRow,
)
from jobbridge.handlers.calendars.providers import (
    Endpoints,
    active_providers,
    http_client,
    renew_each,
    tenants_with,
)
from jobbridge.handlers.calendars.secrets import Secret
from jobbridge.handlers.calendars.subscriptions import (
    abandon_making,
    due_providers,
    keep_subscription,
    lock_subscription,
    note_making,
)
from jobbridge.handlers.sql import Connection
from jobbridge.handlers.tenants import over_tenants
from jobbridge.settings import Settings

#: Every half hour, for each tenant.
SCHEDULE = "*/30 * * * *"


@job("renew-microsoft-calendar-webhooks", retry=RETRY, schedule=SCHEDULE)
def renew_microsoft_calendar_webhooks(ctx: JobContext, data: RenewSubscriptions) -> dict[str, Any] | FanOut:
    """Renew a tenant's Graph subscriptions that end soon, and make anew those that Graph has dropped."""
    return over_tenants(ctx, data, tenants_with_microsoft_calendars) or renew_subscriptions(
        ctx, ctx.settings, data
    )


def tenants_with_microsoft_calendars(connection: Connection) -> list[str]:
    """Give the tenants that have a Microsoft calendar."""
    return tenants_with(connection, ProviderKind.MICROSOFT)


def renew_subscriptions(ctx: Context, settings: Settings, data: RenewSubscriptions) -> dict[str, Any]:
    """Renew each subscription that ends within the look-ahead.

    Raises:
        CalendarsNotRenewed: Some could not be; the others are.
        PartlyRefused: As that, and another attempt would not change it.
    """
    with ctx.transaction() as connection:
        providers = active_providers(connection, ctx.tenant_id, ProviderKind.MICROSOFT)
        due = due_providers(connection, ctx.tenant_id, data.look_ahead)
    to_do = [provider for provider in providers if provider.provider_id in due]
    with http_client() as http:
        renewals = Renewals(ctx=ctx, endpoints=Endpoints.of(settings), http=http)
        results = renew_each(ctx, settings, "renew", to_do, renewals.renew)
    ctx.progress(1, 1, f"{len(results)} of {len(providers)} calendars renewed")
    return {"calendars": len(providers), "renewed": dict(results)}


@dataclass(frozen=True, kw_only=True, slots=True)
class Renewals:
    """Renews the subscriptions of one job's tenant."""

    ctx: Context
    endpoints: Endpoints
    http: Any

    def renew(self, provider: CalendarProvider, secret: Secret) -> dict[str, Any]:
        """Have a living subscription; give what had to be done for it."""
        urls = self.endpoints
        graph = Graph(
            self.http, provider, secret, graph_url=urls.graph_url, login_url=urls.microsoft_login_url
        )
        row = self._row(provider)
        if row.making_job is not None:
            return self._settle(provider, graph, secret, row)
        if row.subscription_id is not None:
            expires_at = graph.renew(row.subscription_id, row.now + LIFETIME)
            if expires_at is not None:
                self._keep(provider, row.subscription_id, expires_at)
                return {"action": "renewed"}
            self._note_making(provider)
        return self._make(provider, graph, secret, row)

    def _row(self, provider: CalendarProvider) -> SubscriptionRow:
        """Give what is known, and take the provider if a subscription is to be made."""
        with self.ctx.transaction() as connection:
            row = lock_subscription(connection, self.ctx.tenant_id, provider.provider_id)
            self._refuse_if_busy(provider, row)
            if row.subscription_id is None or row.making_job is not None:
                note_making(connection, self.ctx.tenant_id, provider.provider_id, self.ctx.job_id)
        return row

    def _note_making(self, provider: CalendarProvider) -> None:
        with self.ctx.transaction() as connection:
            row = lock_subscription(connection, self.ctx.tenant_id, provider.provider_id)
            self._refuse_if_busy(provider, row)
            note_making(connection, self.ctx.tenant_id, provider.provider_id, self.ctx.job_id)

    def _refuse_if_busy(self, provider: CalendarProvider, row: SubscriptionRow) -> None:
        if row.making_job not in (None, self.ctx.job_id) and row.is_fresh:
            raise BusyElsewhere.about(provider.provider_id, row.making_job or "")

    def _make(
        self, provider: CalendarProvider, graph: Graph, secret: Secret, row: SubscriptionRow
    ) -> dict[str, Any]:
        address = self.endpoints.notifications_of(self.ctx.tenant_id, provider)
        try:
            made = graph.create(
                provider.resource, address, secret.webhook_token(provider.provider_id), row.now + LIFETIME
            )
        except JobBridgeError:
            self._abandon(provider)
            raise
        self._keep(provider, made.subscription_id, made.expires_at)
        return {"action": "created" if row.subscription_id is None else "recreated"}

    def _settle(
        self, provider: CalendarProvider, graph: Graph, secret: Secret, row: SubscriptionRow
    ) -> dict[str, Any]:
        """Clean up after a run that died while it made one."""
        try:
            found = graph.subscriptions_to(self.endpoints.notifications_of(self.ctx.tenant_id, provider))
            for superfluous in found[1:]:
                graph.delete(superfluous.subscription_id)
            expires_at = graph.renew(found[0].subscription_id, row.now + LIFETIME) if found else None
        except JobBridgeError:
            self._abandon(provider)
            raise
        if expires_at is None:
            return self._make(provider, graph, secret, row)
        self._keep(provider, found[0].subscription_id, expires_at)
        return {"action": "found"}

    def _keep(self, provider: CalendarProvider, subscription_id: str, expires_at: datetime) -> None:
        # Both at once: the next run has nothing to do for this provider, so it would not note the success.
        with self.ctx.transaction() as connection:
            keep_subscription(
                connection, self.ctx.tenant_id, provider.provider_id, subscription_id, expires_at
            )
            note_success(connection, self.ctx.tenant_id, provider.provider_id)

    def _abandon(self, provider: CalendarProvider) -> None:
        with self.ctx.transaction() as connection:
            abandon_making(connection, self.ctx.tenant_id, provider.provider_id, self.ctx.job_id)
