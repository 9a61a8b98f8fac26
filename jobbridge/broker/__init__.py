"""A kombu transport over Postgres. It knows nothing of jobs nor of Celery; of jobbridge, only the way to Postgres.

How it works, from the outside in:

- `transport.Transport` is what kombu loads for `jobbridge+postgresql://…`; `channel.Channel` is AMQP's channel.
  Both derive from kombu's SQLAlchemy transport, and replace how it stores and consumes.
- Each transport has one `session.Session`: one connection to Postgres that publishes, claims, acknowledges and
  LISTENs. A consumer's session holds an advisory lock on its own number; messages that it takes carry that number.
  When the session ends, however it ends, Postgres frees the lock, and whoever sweeps next frees the messages
  (`consume.sweeping`).
- The SQL stands in `topology` (queues, exchanges, bindings), `publishing`, and in the rooms `consume` (claim,
  settle, sweep) and `admin`.

Names are resolved on first use (PEP 562): importing this package is light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jobbridge.broker.admin.dead_letters import (
        DeadLetter,
        dead_letters,
        delete_dead,
        delete_dead_of,
        send_dead_again,
    )
    from jobbridge.broker.admin.queue_admin import (
        QueueDepth,
        QueueLook,
        WaitingMessage,
        count_ahead,
        delete_waiting,
        look_at_queues,
        make_due,
        messages_of,
        queue_depths,
        queue_names,
        queues_bound,
        queues_keyed,
        why_buried,
    )
    from jobbridge.broker.admin.transfer import (
        StoredMessage,
        delete_messages,
        forms_of,
        headers_of,
        hold_waiting,
        store_messages,
    )
    from jobbridge.broker.consume.sweeping import leave
    from jobbridge.broker.errors import BrokerError, BrokerNotMigrated, BrokerRefused, PublishFailed
    from jobbridge.broker.headers import lean_headers
    from jobbridge.broker.parcels import PUBLISH_MANY, Parcel, Parcels
    from jobbridge.broker.publishing import (
        PUBLISH_TO_QUEUE,
        hand_over,
        parameters_of,
        publishing_by,
        publishing_held,
        publishing_on,
    )
    from jobbridge.broker.routing import topic_pattern
    from jobbridge.broker.topology import is_declared

#: As `requeue` of a rejection: the message goes back as if it had not been delivered, and so never becomes a dead
#: letter by it. Another broker takes it for true.
UNCOUNTED = "uncounted"

__all__ = [
    "PUBLISH_MANY",
    "PUBLISH_TO_QUEUE",
    "UNCOUNTED",
    "BrokerError",
    "BrokerNotMigrated",
    "BrokerRefused",
    "DeadLetter",
    "Parcel",
    "Parcels",
    "PublishFailed",
    "QueueDepth",
    "QueueLook",
    "StoredMessage",
    "WaitingMessage",
    "count_ahead",
    "dead_letters",
    "delete_dead",
    "delete_dead_of",
    "delete_messages",
    "delete_waiting",
    "forms_of",
    "hand_over",
    "headers_of",
    "hold_waiting",
    "is_declared",
    "lean_headers",
    "leave",
    "look_at_queues",
    "make_due",
    "messages_of",
    "parameters_of",
    "publishing_by",
    "publishing_held",
    "publishing_on",
    "queue_depths",
    "queue_names",
    "queues_bound",
    "queues_keyed",
    "register",
    "send_dead_again",
    "store_messages",
    "topic_pattern",
    "why_buried",
]

_PUBLIC = {
    "BrokerError": "errors",
    "BrokerNotMigrated": "errors",
    "BrokerRefused": "errors",
    "PublishFailed": "errors",
    "QueueDepth": "admin.queue_admin",
    "QueueLook": "admin.queue_admin",
    "WaitingMessage": "admin.queue_admin",
    "leave": "consume.sweeping",
    "count_ahead": "admin.queue_admin",
    "delete_waiting": "admin.queue_admin",
    "look_at_queues": "admin.queue_admin",
    "make_due": "admin.queue_admin",
    "messages_of": "admin.queue_admin",
    "queue_names": "admin.queue_admin",
    "queues_bound": "admin.queue_admin",
    "queues_keyed": "admin.queue_admin",
    "topic_pattern": "routing",
    "hand_over": "publishing",
    "is_declared": "topology",
    "lean_headers": "headers",
    "parameters_of": "publishing",
    "PUBLISH_MANY": "parcels",
    "PUBLISH_TO_QUEUE": "publishing",
    "Parcel": "parcels",
    "Parcels": "parcels",
    "publishing_by": "publishing",
    "publishing_held": "publishing",
    "publishing_on": "publishing",
    "queue_depths": "admin.queue_admin",
    "why_buried": "admin.queue_admin",
    "DeadLetter": "admin.dead_letters",
    "dead_letters": "admin.dead_letters",
    "delete_dead": "admin.dead_letters",
    "delete_dead_of": "admin.dead_letters",
    "send_dead_again": "admin.dead_letters",
    "StoredMessage": "admin.transfer",
    "delete_messages": "admin.transfer",
    "forms_of": "admin.transfer",
    "headers_of": "admin.transfer",
    "hold_waiting": "admin.transfer",
    "store_messages": "admin.transfer",
}

#: The first is what `Connection` splits off a URL. The others are what it takes for the scheme elsewhere.
_SCHEMES = (
    "jobbridge",
    *(
        f"jobbridge+{scheme}{driver}"
        for scheme in ("postgresql", "postgres", "psql", "pgsql", "postgis")
        for driver in ("", "+psycopg", "+psycopg2", "+asyncpg")
    ),
)


def register() -> None:
    """Make `jobbridge+postgresql://` known to kombu. Calling it again changes nothing."""
    # kombu has no entry point for transports (kombu 5.7, transport/__init__.py).
    from kombu.transport import TRANSPORT_ALIASES

    for scheme in _SCHEMES:
        TRANSPORT_ALIASES[scheme] = "jobbridge.broker.transport:Transport"


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)
