"""Instants that a client may name."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, Field

_FIRST, _LAST = datetime(1999, 12, 31, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)
_PATTERN = {"pattern": "^2[01][0-9]{2}-"}

#: Two centuries around now: a date near the year 9999 is in no time zone's calendar any more.
Instant = Annotated[
    AwareDatetime,
    Field(
        ge=_FIRST,
        le=_LAST,
        json_schema_extra={**_PATTERN},
    ),
]


def _in_utc(at: datetime) -> datetime:
    aware = at if at.tzinfo else at.replace(tzinfo=UTC)
    if not _FIRST <= aware <= _LAST:
        raise ValueError("It must be of this century or the next")
    return aware


#: Of a filter, as in the address of the page: without a zone it is UTC, and a day alone is its beginning.
FilterInstant = Annotated[datetime, AfterValidator(_in_utc), Field(json_schema_extra={**_PATTERN})]
