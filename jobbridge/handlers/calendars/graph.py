"""Microsoft Graph, as far as subscriptions go.

Source: learn.microsoft.com/graph/api/resources/subscription.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from jobbridge.handlers.calendars.errors import ProviderUnavailable
from jobbridge.handlers.calendars.http import ProviderApi
from jobbridge.handlers.calendars.models import CalendarProvider, Subscription
from jobbridge.handlers.calendars.secrets import Secret

if TYPE_CHECKING:
    import httpx

#: Outlook's resources have had this maximum since 2016, and a longer one later.
LIFETIME = timedelta(minutes=4230)

_GONE = (404, 410)


class Graph:
    """The subscriptions of one application in one customer's directory."""

    def __init__(
        self,
        http: httpx.Client,
        provider: CalendarProvider,
        secret: Secret,
        *,
        graph_url: str,
        login_url: str,
    ) -> None:
        origin = urlsplit(graph_url)
        directory = quote(provider.directory_id or "", safe="")

        def form(secret: Secret) -> Mapping[str, str]:
            return {
                "grant_type": "client_credentials",
                "client_id": secret["client_id"],
                "client_secret": secret["client_secret"],
                "scope": f"{origin.scheme}://{origin.netloc}/.default",
            }

        self._api = ProviderApi(
            http,
            base_url=graph_url,
            token_url=f"{login_url.rstrip('/')}/{directory}/oauth2/v2.0/token",
            secret=secret,
            token_form=form,
        )

    def renew(self, subscription_id: str, expires_at: datetime) -> datetime | None:
        """Let it live until then; give until when it does, None if there is no such subscription any more."""
        answer = self._api.call("PATCH", _path(subscription_id), json=_until(expires_at), absent=_GONE)
        return None if answer is None else _subscription(answer).expires_at

    def create(self, resource: str, notification_url: str, token: str, expires_at: datetime) -> Subscription:
        """Subscribe to a resource's changes.

        Args:
            token: Comes back with each notification.
        """
        body = {
            "changeType": "created,updated,deleted",
            "notificationUrl": notification_url,
            "resource": resource,
            "clientState": token,
            **_until(expires_at),
        }
        return _subscription(self._api.call("POST", "subscriptions", json=body) or {})

    def subscriptions_to(self, notification_url: str) -> list[Subscription]:
        """Give all that send there, the one that lives longest first."""
        found = [one for one in self._all() if one.notification_url == notification_url]
        return sorted(found, key=lambda one: one.expires_at, reverse=True)

    def delete(self, subscription_id: str) -> None:
        """End it, if it is there."""
        self._api.call("DELETE", _path(subscription_id), absent=_GONE)

    def _all(self) -> Iterator[Subscription]:
        path: str | None = "subscriptions"
        while path:
            page = self._api.call("GET", path) or {}
            yield from map(_subscription, page.get("value", ()))
            path = page.get("@odata.nextLink")


def _path(subscription_id: str) -> str:
    return f"subscriptions/{quote(subscription_id, safe='')}"


def _until(expires_at: datetime) -> dict[str, str]:
    return {"expirationDateTime": expires_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")}


def _subscription(answer: Mapping[str, Any]) -> Subscription:
    try:
        return Subscription(
            subscription_id=str(answer["id"]),
            notification_url=str(answer.get("notificationUrl", "")),
            expires_at=_instant(str(answer["expirationDateTime"])),
        )
    except (KeyError, ValueError) as error:
        raise ProviderUnavailable(f"Graph answers with a subscription that lacks {error}.") from None


def _instant(text: str) -> datetime:
    """Read `2026-11-23T18:23:45.9356913Z`: Graph writes seven digits, Python reads six."""
    whole, _, fraction = text.rstrip("Z").partition(".")
    return datetime.fromisoformat(f"{whole}.{fraction[:6].ljust(6, '0')}+00:00")
