"""The data of both jobs, and the words of calendars."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

from pydantic import Field

from jobbridge.handlers.job_data import JobData


class ProviderKind(StrEnum):
    MICROSOFT = "microsoft"
    GOOGLE = "google"


class RenewSubscriptions(JobData):
    """Renew what ends within so many minutes."""

    look_ahead_minutes: int = Field(180, ge=1, le=4000)

    @property
    def look_ahead(self) -> timedelta:
        return timedelta(minutes=self.look_ahead_minutes)


class VerifyChannels(JobData):
    """Renew what ends within so many minutes."""

    look_ahead_minutes: int = Field(360, ge=1, le=10_000)

    @property
    def look_ahead(self) -> timedelta:
        return timedelta(minutes=self.look_ahead_minutes)


@dataclass(frozen=True, kw_only=True, slots=True)
class CalendarProvider:
    """One calendar whose changes are to be told.

    Attributes:
        resource: A Graph resource (`users/ID/events`), or the id of a Google calendar.
        secret_name: Which secret.
        directory_id: Microsoft's id of the customer.
    """

    provider_id: str
    kind: ProviderKind
    name: str
    resource: str
    secret_name: str
    directory_id: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Subscription:
    """What Graph holds.

    Attributes:
        notification_url: Where it sends to; this tells whose it is.
    """

    subscription_id: str
    notification_url: str
    expires_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class SubscriptionRow:
    """What we know of it.

    Attributes:
        making_job: The job that is asking Graph for a new one, or died while it did.
        is_fresh: It began so short a time ago that it may still run.
    """

    subscription_id: str | None
    making_job: str | None
    is_fresh: bool
    now: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenedChannel:
    """What Google answered."""

    resource_id: str
    expires_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class ChannelRow:
    """A channel that Google has, or may have.

    Attributes:
        resource_id: Google's id of what is watched; None: the answer was not seen.
        is_fresh: Its opening began so short a time ago that it may still be going on.
    """

    channel_id: UUID
    status: str
    resource_id: str | None
    expires_at: datetime | None
    job_id: str
    is_fresh: bool
    now: datetime
