"""Instants that a client may name."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AwareDatetime, Field

#: Two centuries around now: a date near the year 9999 is in no time zone's calendar any more.
Instant = Annotated[
    AwareDatetime,
    Field(
        ge=datetime(1999, 12, 31, tzinfo=UTC),
        le=datetime(2200, 1, 1, tzinfo=UTC),
        json_schema_extra={"pattern": "^2[01][0-9]{2}-"},
    ),
]
