"""The tenant: its letterhead, and what day and what hour it is there."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, time
from zoneinfo import ZoneInfo

import psycopg

from jobbridge.handlers.errors import UnknownProvider, UnknownTimeZone
from jobbridge.handlers.sql import Connection, Transaction, one, one_as

PROVIDER = """
SELECT name, street, postal_code, city, country, email, phone, vat_number, iban, bic, currency, invoice_prefix
FROM psa.providers
WHERE tenant = %(tenant)s
"""

# The database's clock decides, in whatever zone the worker runs.
TODAY = """
SELECT (clock_timestamp() AT TIME ZONE timezone)::date
FROM psa.providers
WHERE tenant = %(tenant)s
"""

BUSINESS_HOURS = """
SELECT timezone, business_days, business_opens_at, business_closes_at
FROM psa.providers
WHERE tenant = %(tenant)s
"""

TIME_ZONE = """
SELECT timezone
FROM psa.providers
WHERE tenant = %(tenant)s
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Provider:
    """Who sends the invoice."""

    name: str
    street: str
    postal_code: str
    city: str
    country: str
    email: str
    phone: str
    vat_number: str
    iban: str
    bic: str
    currency: str
    invoice_prefix: str


@dataclass(frozen=True, kw_only=True, slots=True)
class BusinessHours:
    """When the tenant's usual prices hold: on these days (1 is Monday), from one hour to the other, local time."""

    zone: ZoneInfo
    days: frozenset[int]
    opens_at: time
    closes_at: time


def provider_of(connection: Connection, tenant: str) -> Provider:
    """Give the tenant's letterhead.

    Raises:
        UnknownProvider: There is none.
    """
    provider = one_as(Provider, connection, PROVIDER, {"tenant": tenant})
    if provider is None:
        raise UnknownProvider.about(tenant)
    return provider


def today_of(connection: Connection, tenant: str) -> date:
    """Give the day that it is at the tenant's, by the database's clock.

    Raises:
        UnknownProvider: There is no such tenant.
        UnknownTimeZone: Its time zone does not exist.
    """
    try:
        with connection.transaction():  # a savepoint: the caller's transaction survives the error
            found = one(connection, TODAY, {"tenant": tenant})
    except psycopg.errors.InvalidParameterValue:
        (timezone,) = one(connection, TIME_ZONE, {"tenant": tenant}) or ("",)
        raise UnknownTimeZone.about(tenant, timezone) from None
    if found is None:
        raise UnknownProvider.about(tenant)
    today: date = found[0]
    return today


def day_of(transaction: Transaction, tenant: str, as_of: date | None) -> date:
    """Give the day that a job is about: the one that it was told, else the tenant's today.

    Raises:
        UnknownProvider: There is no such tenant.
        UnknownTimeZone: Its time zone does not exist.
    """
    if as_of is not None:
        return as_of
    with transaction() as connection:
        return today_of(connection, tenant)


def business_hours_of(connection: Connection, tenant: str) -> BusinessHours:
    """Give the tenant's business hours.

    Raises:
        UnknownProvider: There is no such tenant.
        UnknownTimeZone: Its time zone does not exist.
    """
    found = one(connection, BUSINESS_HOURS, {"tenant": tenant})
    if found is None:
        raise UnknownProvider.about(tenant)
    timezone, days, opens_at, closes_at = found
    try:
        zone = ZoneInfo(timezone)
    except (ValueError, LookupError, OSError):  # it has all three for what is no name of a zone
        raise UnknownTimeZone.about(tenant, timezone) from None
    return BusinessHours(zone=zone, days=frozenset(days), opens_at=opens_at, closes_at=closes_at)
