"""Which calendars a tenant has, and what asking their providers needs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from jobbridge import JobBridgeError, JobCancelled
from jobbridge.errors import ConfigurationError
from jobbridge.handlers.batches import Context, for_each
from jobbridge.handlers.calendars.errors import (
    BusyElsewhere,
    CalendarError,
    CalendarRefusal,
    CalendarsNotRenewed,
    RateLimited,
    TryAgainLater,
)
from jobbridge.handlers.calendars.health import note_failure, note_success, refuse_while_paused
from jobbridge.handlers.calendars.http import TIMEOUT
from jobbridge.handlers.calendars.models import CalendarProvider, ProviderKind
from jobbridge.handlers.calendars.secrets import Secret
from jobbridge.handlers.errors import PartlyFailed
from jobbridge.handlers.extras import required
from jobbridge.handlers.sql import Connection, rows, rows_as
from jobbridge.settings import Settings

if TYPE_CHECKING:
    import ssl

    import httpx

TENANTS = """
SELECT DISTINCT tenant
FROM psa.calendar_providers
WHERE kind = %(kind)s AND is_active
ORDER BY tenant
"""

ACTIVE = """
SELECT provider_id, kind, name, resource, secret_name, directory_id
FROM psa.calendar_providers
WHERE tenant = %(tenant)s AND kind = %(kind)s AND is_active
ORDER BY provider_id
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Endpoints:
    """Where the providers are, and where they send their notifications."""

    graph_url: str
    microsoft_login_url: str
    google_url: str
    google_token_url: str
    webhook_url: str

    @classmethod
    def of(cls, settings: Settings) -> Endpoints:
        """Take them from the settings.

        Raises:
            ConfigurationError: CALENDAR_WEBHOOK_URL or CALENDAR_SECRETS_DIR is not set.
        """
        if settings.calendar_secrets_dir is None:
            raise ConfigurationError(
                "CALENDAR_SECRETS_DIR is not set, so there are no credentials for calendars.",
                hint="Set CALENDAR_SECRETS_DIR to the folder that holds the secrets' JSON files.",
            )
        if not settings.calendar_webhook_url:
            raise ConfigurationError(
                "CALENDAR_WEBHOOK_URL is not set, so calendars cannot be told where to send notifications.",
                hint="Set CALENDAR_WEBHOOK_URL to an https address that Microsoft and Google can reach.",
            )
        return cls(
            graph_url=settings.microsoft_graph_url,
            microsoft_login_url=settings.microsoft_login_url,
            google_url=settings.google_calendar_url,
            google_token_url=settings.google_token_url,
            webhook_url=settings.calendar_webhook_url,
        )

    def notifications_of(self, tenant: str, provider: CalendarProvider) -> str:
        """Give the address of one provider: it tells whose a subscription is, also when nothing else does."""
        path = "/".join(quote(part, safe="") for part in (provider.kind, tenant, provider.provider_id))
        return f"{self.webhook_url.rstrip('/')}/{path}"


def tenants_with(connection: Connection, kind: ProviderKind) -> list[str]:
    return [tenant for (tenant,) in rows(connection, TENANTS, {"kind": kind})]


def active_providers(connection: Connection, tenant: str, kind: ProviderKind) -> list[CalendarProvider]:
    return rows_as(CalendarProvider, connection, ACTIVE, {"tenant": tenant, "kind": kind})


@contextmanager
def http_client(timeout: timedelta = TIMEOUT) -> Iterator[httpx.Client]:
    """Open a client that follows no redirect: a token goes only where the settings say."""
    library = required("httpx", "Asking a calendar's provider")
    with library.Client(timeout=timeout.total_seconds(), follow_redirects=False, verify=_trusted()) as client:
        yield client


@functools.cache
def _trusted() -> ssl.SSLContext:
    """Give what httpx checks certificates by; to read the authorities costs more than most calls, so once a process."""
    context: ssl.SSLContext = required("httpx", "Asking a calendar's provider").create_ssl_context()
    return context


#: Renews one provider with its secret; gives the result of its step.
Renew = Callable[[CalendarProvider, Secret], dict[str, Any]]


def renew_each(
    ctx: Context, settings: Settings, name: str, providers: list[CalendarProvider], renew: Renew
) -> Mapping[str, Any]:
    """Renew each provider, and keep how it does; one that fails stops no other.

    Returns:
        The results by provider.

    Raises:
        CalendarsNotRenewed: Some failed, and another attempt may cure it; it says how long to wait.
        PartlyRefused: Some failed, and it cannot.
    """
    folder = settings.calendar_secrets_dir

    def work(provider: CalendarProvider) -> dict[str, Any]:
        with ctx.transaction() as connection:
            refuse_while_paused(connection, ctx.tenant_id, provider.provider_id)
        try:
            result = renew(provider, Secret.read(folder, provider.secret_name))
        except (BusyElsewhere, JobCancelled, ConfigurationError):
            raise  # says nothing about the provider
        except JobBridgeError as error:
            _note_failure(ctx, provider, error)
            raise
        with ctx.transaction() as connection:
            note_success(connection, ctx.tenant_id, provider.provider_id)
        return result

    batch = for_each(ctx, name, {provider.provider_id: provider for provider in providers}, work)
    try:
        batch.raise_failures("calendars were not renewed")
    except PartlyFailed as error:
        waits = [
            failure.retry_after
            for failure in batch.failures.values()
            if isinstance(failure, RateLimited | BusyElsewhere)
        ]
        if type(error) is not PartlyFailed:
            raise
        again = CalendarsNotRenewed(str(error))
        again.retry_after = max(waits, default=timedelta(0))
        raise again from None
    return batch.results


def _note_failure(ctx: Context, provider: CalendarProvider, error: JobBridgeError) -> None:
    if not isinstance(error, CalendarError | CalendarRefusal):
        return
    pause = getattr(error, "retry_after", None) if isinstance(error, RateLimited | TryAgainLater) else None
    with ctx.transaction() as connection:
        note_failure(connection, ctx.tenant_id, provider.provider_id, ctx.job_id, str(error), pause)
