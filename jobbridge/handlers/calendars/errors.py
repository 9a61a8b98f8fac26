"""What goes wrong with a calendar, and which of it another attempt can cure. No message holds a secret.

CalendarRefusal            never: somebody must correct the settings, the secret, or the rights at the provider
├── SecretUnusable         the secret's file is missing, or lacks a field
├── CredentialsRefused     the provider does not accept them
├── AccessDenied           it accepts them, and they do not allow this
├── CalendarGone           it does not know the calendar
└── RequestRefused         it refuses for another reason
CalendarError
├── ProviderUnavailable    no answer, or "something is wrong here"; later may work
├── RateLimited            "not now", and when: retry_after
├── TryAgainLater          "not now", and so late that the next run by schedule is soon enough
└── BusyElsewhere          another job is renewing it at this moment
CalendarsNotRenewed        some were not renewed, all others were; another attempt may cure it
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Self

from jobbridge.errors import JobBridgeError
from jobbridge.handlers.errors import PartlyFailed, Refusal

#: A server that asks for more is asked again by the next run by schedule.
LONGEST_WAIT = timedelta(hours=1)


class CalendarRefusal(Refusal):
    """Somebody must correct something."""


class SecretUnusable(CalendarRefusal):
    """The secret's file is missing, or lacks a field."""

    hint = "Put a JSON file with the client's id and secret into CALENDAR_SECRETS_DIR; docs/handlers.md has the fields."

    @classmethod
    def about(cls, name: str, reason: str) -> Self:
        return cls(f"The secret {name!r} cannot be used: {reason}.")


class CredentialsRefused(CalendarRefusal):
    """The provider does not accept the credentials."""

    hint = (
        "Renew the client secret, or have the calendar's owner consent again, and replace the secret's file."
    )


class AccessDenied(CalendarRefusal):
    """The credentials are good, and do not allow this."""

    hint = "Grant the application the right to read this calendar."


class CalendarGone(CalendarRefusal):
    """The provider does not know the calendar."""

    hint = "Correct the provider's resource, or set is_active to false."


class RequestRefused(CalendarRefusal):
    """The provider refuses for a reason that is not known here."""

    hint = (
        "Read its reason; check the resource, and that CALENDAR_WEBHOOK_URL is reachable from the internet."
    )


class CalendarError(JobBridgeError):
    """Another attempt may cure it."""


class ProviderUnavailable(CalendarError):
    """No answer, or one that says that something is wrong there."""

    hint = "Wait: the next attempt asks again. If it lasts, look at the provider's status page and at the network."


class RateLimited(CalendarError):
    """The provider says "not now", and when."""

    hint = "Wait: the next attempt comes when the provider said."
    retry_after: timedelta = timedelta(0)

    @classmethod
    def about(cls, what: str, wait: timedelta) -> Self:
        error = cls(f"{what}: too many requests; the next one in {wait.total_seconds():.0f} s.")
        error.retry_after = wait
        return error


class TryAgainLater(CalendarRefusal):
    """The provider says "not now", for so long that this job does not wait."""

    hint = "Wait: the next run by schedule after that time asks again."
    retry_after: timedelta = timedelta(0)

    @classmethod
    def about(cls, what: str, wait: timedelta, now: datetime) -> Self:
        error = cls(f"{what}: too many requests; not before {now + wait:%Y-%m-%d %H:%M} UTC.")
        error.retry_after = wait
        return error


class BusyElsewhere(CalendarError):
    """Another job is renewing it at this moment."""

    hint = "Wait: the next attempt finds it renewed."
    retry_after: timedelta = timedelta(seconds=30)

    @classmethod
    def about(cls, provider_id: str, job_id: str) -> Self:
        return cls(f"Job {job_id} is renewing {provider_id!r}.")


class CalendarsNotRenewed(PartlyFailed):
    """Some were not renewed, all others were. Another attempt asks for the missing ones only."""

    hint = "Read the reason of each; psa.calendar_health has them too. What is not named was renewed."
    retry_after: timedelta = timedelta(0)
