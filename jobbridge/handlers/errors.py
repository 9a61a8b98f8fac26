"""What goes wrong in more than one part of the books.

Refusal                    never: somebody must correct the books
├── UnknownProvider        the tenant has no letterhead, or no settings
└── UnknownTimeZone        the tenant's time zone is none
PartlyFailed               some of many were not done, all others were; another attempt may cure it
└── PartlyRefused          it cannot

Each can be made of its message alone: see `jobbridge.handlers.invoicing.errors`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from jobbridge.errors import JobBridgeError

#: An error names that many of what failed; the job's steps name each.
NAMED = 20


class Refusal(JobBridgeError):
    """The books do not allow it."""


class UnknownProvider(Refusal):
    """The tenant has no letterhead."""

    hint = "Add the provider's name, address and bank account, or import the data set for this tenant."

    @classmethod
    def about(cls, tenant: str) -> Self:
        return cls(f"Tenant {tenant!r} has no row in psa.providers: there is no sender, and no time zone.")


class UnknownTimeZone(Refusal):
    """The tenant's time zone is none."""

    hint = "Set psa.providers.timezone to a name of the IANA database, such as Europe/Dublin."

    @classmethod
    def about(cls, tenant: str, timezone: str) -> Self:
        return cls(f"The time zone of tenant {tenant!r} is {timezone!r}, which does not exist.")


class PartlyFailed(JobBridgeError):
    """Some of many were not done, all others were. Another attempt does the missing ones only."""

    hint = "Read the reason of each; what is not named was done."

    @classmethod
    def about(cls, what: str, reasons: Mapping[str, str], *, of: int) -> Self:
        named = "; ".join(f"{name}: {reason}" for name, reason in list(reasons.items())[:NAMED])
        more = f"; and {len(reasons) - NAMED} more" if len(reasons) > NAMED else ""
        return cls(f"{len(reasons)} of {of} {what}. {named}{more}")


class PartlyRefused(PartlyFailed):
    """As its base, and another attempt would not change it."""
