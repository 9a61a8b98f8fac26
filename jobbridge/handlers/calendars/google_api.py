"""Google Calendar, as far as watch channels go: they cannot be prolonged, listed, or stopped without their resource.

Source: developers.google.com/workspace/calendar/api/guides/push; calendar/v3/reference/channels/stop.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import quote
from uuid import UUID

from jobbridge.handlers.calendars.errors import CalendarGone, ProviderUnavailable
from jobbridge.handlers.calendars.http import ProviderApi
from jobbridge.handlers.calendars.models import CalendarProvider, OpenedChannel
from jobbridge.handlers.calendars.secrets import Secret

if TYPE_CHECKING:
    import httpx

LIFETIME = timedelta(days=7)

_GONE = (404, 410)


class GoogleCalendar:
    """One calendar, as its owner sees it."""

    def __init__(
        self,
        http: httpx.Client,
        provider: CalendarProvider,
        secret: Secret,
        *,
        google_url: str,
        token_url: str,
    ) -> None:
        def form(secret: Secret) -> Mapping[str, str]:
            fields = ("client_id", "client_secret", "refresh_token")
            return {"grant_type": "refresh_token", **{field: secret[field] for field in fields}}

        self._calendar = provider.resource
        self._path = f"calendars/{quote(provider.resource, safe='')}"
        self._api = ProviderApi(
            http, base_url=google_url, token_url=token_url, secret=secret, token_form=form
        )

    def verify(self) -> None:
        """Pass if the calendar is there, and we may read it.

        Raises:
            CalendarGone: It is not.
        """
        if self._api.call("GET", self._path, absent=_GONE) is None:
            raise CalendarGone(f"Google has no calendar {self._calendar!r}.")

    def watch(self, channel_id: UUID, address: str, token: str, expires_at: datetime) -> OpenedChannel:
        """Open a channel under an id that we choose.

        Args:
            token: Comes back with each notification.
        """
        body = {
            "id": str(channel_id),
            "type": "web_hook",
            "address": address,
            "token": token,
            "expiration": str(int(expires_at.timestamp() * 1000)),
        }
        answer = self._api.call("POST", f"{self._path}/events/watch", json=body) or {}
        try:
            until = datetime.fromtimestamp(int(answer["expiration"]) / 1000, UTC)
            return OpenedChannel(resource_id=str(answer["resourceId"]), expires_at=until)
        except (KeyError, ValueError, OverflowError) as error:
            raise ProviderUnavailable(f"Google answers with a channel that lacks {error}.") from None

    def stop(self, channel_id: UUID, resource_id: str) -> None:
        """Close a channel, if it is open."""
        body = {"id": str(channel_id), "resourceId": resource_id}
        self._api.call("POST", "channels/stop", json=body, absent=_GONE)
