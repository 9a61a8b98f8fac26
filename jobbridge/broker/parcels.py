"""Messages as a part of somebody else's statement, which writes rows along with them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, LiteralString
from uuid import UUID

from jobbridge.broker.routing import CHANNEL_OF_QUEUE


@dataclass(frozen=True, kw_only=True, slots=True)
class Parcel:
    """A message as a part of another statement.

    Attributes:
        parameters: Of both parts, by name.
        put: A CTE named `put` that stores the message for each row of a CTE `moved` before it.
        told: What to select from `put`, so that consumers wake.
    """

    parameters: dict[str, Any]
    put: LiteralString
    told: LiteralString


# What a list of messages looks like: one JSON document, whose headers stay the text that they are.
_PUT: Final[LiteralString] = """put AS (
    INSERT INTO jobbridge_broker.messages (
        queue, priority, due_at, expires_at, correlation_id, content_type, content_encoding, headers, properties, body
    )
    SELECT
        given.queue, given.priority,
        CASE WHEN given.due_at > clock_timestamp() THEN given.due_at END,
        LEAST(
            given.expires_at,
            clock_timestamp() + make_interval(secs => given.ttl),
            clock_timestamp() + queues.message_ttl
        ),
        given.correlation_id, given.content_type, given.content_encoding,
        given.headers::json, given.properties::json, given.body
    FROM json_to_recordset(%(messages)s::json) AS given (
        number integer, job_id uuid, queue text, priority smallint, due_at timestamptz, expires_at timestamptz,
        ttl double precision, correlation_id text, content_type text, content_encoding text,
        headers text, properties text, body bytea
    )
    <moved>LEFT JOIN jobbridge_broker.queues ON queues.name = given.queue
    ORDER BY given.number
    RETURNING queue, due_at
), woken AS (
    SELECT queue, CASE WHEN bool_or(due_at IS NULL) THEN '' ELSE 'due' END AS how
    FROM put
    WHERE due_at IS NULL OR due_at < clock_timestamp() + interval '60 seconds'
    GROUP BY queue
)"""
_TOLD_MANY: Final[LiteralString] = f"""count(*) + 0 * (
        SELECT count(pg_notify({CHANNEL_OF_QUEUE}, how)) FROM woken
    )"""  # noqa: S608  # put together from constants
_PUT_MANY: Final[LiteralString] = _PUT.replace("<moved>", "JOIN moved ON moved.job_id = given.job_id\n    ")

#: Messages that nothing is written along with.
PUBLISH_MANY: Final[LiteralString] = (
    f"WITH {_PUT.replace('<moved>', '')}\nSELECT {_TOLD_MANY} FROM put\n"  # put together from constants
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Parcels:
    """Many messages as a part of another statement, as `Parcel`; `moved` gives the `job_id` of each."""

    parameters: dict[str, Any]
    put: LiteralString = _PUT_MANY
    told: LiteralString = _TOLD_MANY

    @classmethod
    def of(cls, parcels: Sequence[tuple[UUID | None, Parcel]]) -> Parcels:
        """Put single ones together, each with the id of what is written along with it; for PUBLISH_MANY, without."""
        rows = [_row_of(number, key, parcel.parameters) for number, (key, parcel) in enumerate(parcels)]
        return cls(parameters={"messages": json.dumps(rows, separators=(",", ":"))})


def _row_of(number: int, key: UUID | None, parameters: dict[str, Any]) -> dict[str, Any]:
    due_at, expires_at, ttl = (parameters[each] for each in ("due_at", "message_expires_at", "ttl"))
    return {
        "number": number,
        "job_id": key and str(key),
        "queue": parameters["routing_key"],
        "priority": parameters["message_priority"],
        "due_at": due_at and due_at.isoformat(),
        "expires_at": expires_at and expires_at.isoformat(),
        "ttl": None if ttl is None else ttl.total_seconds(),
        "correlation_id": parameters["correlation_id"],
        "content_type": parameters["content_type"],
        "content_encoding": parameters["content_encoding"],
        "headers": parameters["headers"],
        "properties": parameters["properties"],
        "body": "\\x" + parameters["body"].hex(),
    }
