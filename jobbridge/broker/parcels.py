"""Messages as a part of somebody else's statement, which writes rows along with them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
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
        last: Does as both, as the last part of the statement, and answers no more than that it did; None: the message
            has a time, now or at its end, and only `put` knows of those.
    """

    parameters: dict[str, Any]
    put: LiteralString
    told: LiteralString
    last: LiteralString | None = None


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
    SELECT DISTINCT queue, CASE WHEN due_at IS NULL THEN '' ELSE 'due' END AS how
    FROM put
    WHERE due_at IS NULL OR due_at < clock_timestamp() + interval '60 seconds'
)"""
_TOLD_MANY: Final[LiteralString] = f"""count(*) + 0 * (
        SELECT count(pg_notify({CHANNEL_OF_QUEUE}, how)) FROM woken
    )"""  # noqa: S608  # put together from constants
_PUT_MANY: Final[LiteralString] = _PUT.replace("<moved>", "JOIN moved ON moved.job_id = given.job_id\n    ")

# The same of those that have no times (`Parcel.last`), for less: what many have in common is told once, the rest as
# lists of texts, which no control character is part of. `row_job_id` is of the rows' part.
_PUT_TIMELESS: Final[LiteralString] = """put AS (
    INSERT INTO jobbridge_broker.messages (
        queue, priority, expires_at, correlation_id, content_type, content_encoding, headers, properties, body
    )
    SELECT
        kind.queue, kind.priority, clock_timestamp() + queues.message_ttl, given.job_id,
        kind.content_type, kind.content_encoding,
        given.headers::json, given.properties::json, convert_to(given.body, 'UTF8')
    FROM unnest(
        string_to_array(%(row_job_id)s::text, E'\\x1f'), string_to_array(%(message_kind)s::text, E'\\x1f'),
        string_to_array(%(message_headers)s::text, E'\\x1f'), string_to_array(%(message_properties)s::text, E'\\x1f'),
        string_to_array(%(message_body)s::text, E'\\x1f')
    ) WITH ORDINALITY AS given (job_id, kind, headers, properties, body, number)
    JOIN json_to_recordset(%(message_kinds)s::json) AS kind (
        number integer, queue text, priority smallint, content_type text, content_encoding text
    ) ON kind.number = given.kind::integer
    JOIN moved ON moved.job_id = given.job_id::uuid
    LEFT JOIN jobbridge_broker.queues ON queues.name = kind.queue
    ORDER BY given.number
    RETURNING queue
), woken AS (
    SELECT DISTINCT queue, '' AS how FROM put
)"""

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

    @classmethod
    def timeless(cls, messages: Sequence[Mapping[str, Any]]) -> Parcels:
        """Put messages without times together, whose correlation id is the job's, and whose body is text.

        Args:
            messages: The parameters of each.
        """
        kinds: dict[tuple[Any, ...], int] = {}
        numbers = [str(kinds.setdefault(kind, len(kinds))) for kind in map(_kind_of, messages)]
        names = ("queue", "priority", "content_type", "content_encoding", "number")
        parameters = {
            "message_kinds": json.dumps(
                [dict(zip(names, (*kind, number), strict=True)) for kind, number in kinds.items()]
            ),
            "message_kind": "\x1f".join(numbers),
            "message_headers": "\x1f".join([each["headers"] for each in messages]),
            "message_properties": "\x1f".join([each["properties"] for each in messages]),
            "message_body": b"\x1f".join([each["body"] for each in messages]).decode("ascii"),
        }
        return cls(parameters=parameters, put=_PUT_TIMELESS)


_kind_of = itemgetter("routing_key", "message_priority", "content_type", "content_encoding")


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
