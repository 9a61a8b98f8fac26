"""Taking messages: what is ready, in delivery order, without waiting for anybody.

Each statement asks for one queue by equality, so that it reads the first entries of `messages_ready` and stops
there. With `queue = ANY(…)` Postgres would sort the whole backlog.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from kombu.utils.json import loads

from jobbridge.broker.consume.passed import PRIORITIES, Passed
from jobbridge.broker.consume.settling import OURS
from jobbridge.broker.errors import Unreadable
from jobbridge.broker.headers import whole_headers
from jobbridge.broker.routing import CHANNEL_OF_QUEUE
from jobbridge.broker.session import Row, Session

_READY = """
    SELECT id, expires_at <= statement_timestamp() AS is_expired
    FROM jobbridge_broker.messages
    WHERE queue = %(queue)s AND leased_by IS NULL AND due_at IS NULL"""
_IN_ORDER = """
    ORDER BY priority DESC, id
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
"""
_RETURNED = """
        message.id, message.priority, message.deliveries, message.redelivered, message.content_type,
        message.content_encoding, message.headers::text AS headers, message.properties::text AS properties,
        message.body"""

# Of each priority what comes after a number, below which there is nothing (`passed`). Not `priority = …`: then the
# primary key would give the order, too, and its index has all that ever was in the table.
_READY_AFTER = """
    SELECT ready.*
    FROM unnest(%(priorities)s::smallint[], %(floors)s::bigint[]) AS passed (priority, floor)
    CROSS JOIN LATERAL (
        SELECT id, expires_at <= statement_timestamp() AS is_expired
        FROM jobbridge_broker.messages
        WHERE queue = %(queue)s AND leased_by IS NULL AND due_at IS NULL AND deliveries < %(suspect_from)s
            AND priority <= passed.priority AND priority >= passed.priority AND id >= passed.floor
        ORDER BY priority DESC, id
        LIMIT %(limit)s
        FOR UPDATE SKIP LOCKED
    ) AS ready
    LIMIT %(limit)s
"""

# One statement: what was acknowledged goes, what is expired goes, the rest is leased to the consumer. To acknowledge
# waits for the disk. A lease alone does not: if a crash of Postgres forgets it, the message is there as before.
_CLAIM = f"""
WITH acknowledged AS (
    DELETE FROM jobbridge_broker.messages
    WHERE id = ANY(%(done)s::bigint[]) AND {OURS}
    RETURNING id
), next AS MATERIALIZED (%(next)s),
expired AS (
    DELETE FROM jobbridge_broker.messages AS message
    USING next
    WHERE message.id = next.id AND next.is_expired
    RETURNING {_RETURNED}
),
claimed AS (
    UPDATE jobbridge_broker.messages AS message
    SET leased_by = %(consumer)s, deliveries = message.deliveries + 1
    FROM next
    WHERE message.id = next.id AND next.is_expired IS NOT TRUE
    RETURNING {_RETURNED}
), taken AS (
    SELECT *, false AS is_expired FROM claimed
    UNION ALL
    SELECT *, true AS is_expired FROM expired
)
SELECT taken.*,
    (SELECT count(*) FROM acknowledged) AS acknowledged,
    extract(epoch FROM clock_timestamp() - statement_timestamp())::float AS seconds,
    CASE WHEN %(done)s::bigint[] = '{{}}' THEN set_config('synchronous_commit', 'off', true) END
FROM (SELECT) AS always
LEFT JOIN taken ON true
"""  # noqa: S608  # put together from the constants above
CLAIM = _CLAIM.replace("%(next)s", f"{_READY} AND deliveries < %(suspect_from)s {_IN_ORDER}")
CLAIM_AFTER = _CLAIM.replace("%(next)s", _READY_AFTER)

# One of the suspects, for a consumer that has nothing else (`isolation`).
CLAIM_SUSPECT = f"""
WITH acknowledged AS (
    DELETE FROM jobbridge_broker.messages
    WHERE id = ANY(%(done)s::bigint[]) AND {OURS}
    RETURNING id
), next AS MATERIALIZED ({_READY} AND id = ANY(%(suspects)s::bigint[]) {_IN_ORDER}),
claimed AS (
    UPDATE jobbridge_broker.messages AS message
    SET leased_by = %(consumer)s, deliveries = message.deliveries + 1
    FROM next
    WHERE message.id = next.id
    RETURNING {_RETURNED}, next.is_expired IS TRUE AS is_expired
)
SELECT claimed.*, (SELECT count(*) FROM acknowledged) AS acknowledged
FROM (SELECT) AS always
LEFT JOIN claimed ON true
"""  # noqa: S608  # put together from the constants above

# For consumers that do not acknowledge: delivered is done.
TAKE = f"""
WITH next AS MATERIALIZED ({_READY} {_IN_ORDER})
DELETE FROM jobbridge_broker.messages AS message
USING next
WHERE message.id = next.id
RETURNING {_RETURNED}, next.is_expired IS TRUE AS is_expired
"""  # noqa: S608  # put together from the constants above

# A message that is due joins the ready ones. In portions, so that no consumer holds many locks, nor is
# kept from claiming what is important. Others, who come too
# late to find it among those that will be due, are told.
PROMOTE_DUE = f"""
WITH due AS MATERIALIZED (
    SELECT message.id
    FROM unnest(%(queues)s::text[]) AS served (queue)
    CROSS JOIN LATERAL (
        SELECT id
        FROM jobbridge_broker.messages
        WHERE queue = served.queue AND leased_by IS NULL AND due_at <= statement_timestamp()
        ORDER BY due_at
        LIMIT %(limit)s
        FOR UPDATE SKIP LOCKED
    ) AS message
), promoted AS (
    UPDATE jobbridge_broker.messages AS message
    SET due_at = NULL
    FROM due
    WHERE message.id = due.id
    RETURNING message.queue
)
SELECT queue, pg_notify({CHANNEL_OF_QUEUE}, '')
FROM (SELECT DISTINCT queue FROM promoted) AS queues
"""  # noqa: S608  # put together from the constants above

# Of each queue the first entry of `messages_due`.
SECONDS_TO_NEXT_DUE = """
SELECT extract(epoch FROM nullif(min(message.due_at), 'infinity') - clock_timestamp())::float AS seconds
FROM unnest(%(queues)s::text[]) AS served (queue)
CROSS JOIN LATERAL (
    SELECT due_at
    FROM jobbridge_broker.messages
    WHERE queue = served.queue AND leased_by IS NULL AND due_at IS NOT NULL
    ORDER BY due_at
    LIMIT 1
) AS message
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Claimed:
    """What one look at a queue gave.

    Attributes:
        rows: To deliver, highest priority first, then oldest.
        expired: Their time to live was over; they are deleted.
        acknowledged: How many of `done` were still ours.
        seconds: How long Postgres took to find and lease them.
    """

    rows: list[Row]
    expired: list[Row]
    acknowledged: int = 0
    seconds: float = 0.0


def claim(
    session: Session,
    queue: str,
    limit: int,
    *,
    suspect_from: int,
    suspects: Sequence[int] = (),
    done: Sequence[int] = (),
) -> Claimed:
    """Lease up to `limit` ready messages of the queue until they are settled.

    Args:
        session: Whose consumer gets the leases.
        queue: Its exact name.
        limit: 1 or more.
        suspect_from: What was delivered so often is left to who has nothing else.
        suspects: One of these messages is wanted, if it is there still.
        done: Messages of this consumer to acknowledge with it.
    """
    passed = session.passed.setdefault(queue, Passed())
    if suspects:
        return _claimed(
            session, CLAIM_SUSPECT, {"queue": queue, "limit": 1, "suspects": list(suspects)}, done
        )
    parameters: dict[str, Any] = {"queue": queue, "limit": limit, "suspect_from": suspect_from}
    floors = passed.floors()
    if floors is None:
        claimed = _claimed(session, CLAIM, parameters, done)
    else:
        named = parameters | {"priorities": list(PRIORITIES), "floors": floors}
        claimed = _claimed(session, CLAIM_AFTER, named, done)
    found = [(row["priority"], row["id"]) for row in (*claimed.rows, *claimed.expired)]
    passed.note(found, limit, claimed.seconds, was_all=floors is None)
    return claimed


def _claimed(session: Session, statement: str, parameters: dict[str, Any], done: Sequence[int]) -> Claimed:
    named = parameters | {"done": list(done), "consumer": session.become_consumer()}
    found = session.rows(statement, named)
    claimed = _parted([row for row in found if row["id"] is not None])
    told = found[0]
    return replace(claimed, acknowledged=told["acknowledged"], seconds=told.get("seconds", 0.0))


def take(session: Session, queue: str, limit: int) -> Claimed:
    """Take up to `limit` ready messages of the queue for good: delivered is done."""
    return _parted(session.rows(TAKE, {"queue": queue, "limit": limit}))


def _parted(rows: list[Row]) -> Claimed:
    # RETURNING keeps no order (PostgreSQL manual, "RETURNING").
    rows.sort(key=lambda row: (-row["priority"], row["id"]))
    return Claimed(
        rows=[row for row in rows if not row["is_expired"]],
        expired=[row for row in rows if row["is_expired"]],
    )


def payload_of(row: Row) -> dict[str, Any]:
    """Give the message as kombu's virtual transports have it, without its delivery tag.

    Raises:
        Unreadable: Its headers or properties are not what a message has.
    """
    properties = _object(row["properties"], "properties")
    properties.pop("body_encoding", None)  # the column is binary
    delivery_info = properties.setdefault("delivery_info", {})
    if not isinstance(delivery_info, dict):
        raise Unreadable(f"its delivery_info is {delivery_info!r:.60}")
    delivery_info["redelivered"] = bool(row["redelivered"])
    return {
        "body": bytes(row["body"]),
        "content-type": row["content_type"],
        "content-encoding": row["content_encoding"],
        "headers": whole_headers(_object(row["headers"], "headers")),
        "properties": properties,
    }


def _object(text: str, name: str) -> dict[str, Any]:
    try:
        found = loads(text)
    except Exception as error:  # kombu makes objects of its own types, whose classes raise what they like
        raise Unreadable(f"its {name} cannot be decoded: {error!r:.200}") from error
    if not isinstance(found, dict):
        raise Unreadable(f"its {name} are {found!r:.60}, which is no object")
    return found
