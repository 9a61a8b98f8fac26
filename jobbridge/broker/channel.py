"""AMQP's channel: declare, bind, publish, consume, settle."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from queue import Empty
from typing import TYPE_CHECKING, Any

from amqp.protocol import queue_declare_ok_t
from kombu.exceptions import ChannelError
from kombu.log import get_logger
from kombu.transport import virtual
from kombu.transport.base import to_rabbitmq_queue_arguments  # type: ignore[attr-defined]  # not in the stubs
from kombu.utils.uuid import uuid

from jobbridge.broker import bases, publishing, topology
from jobbridge.broker.consume.claiming import claim, payload_of, take
from jobbridge.broker.consume.settling import REJECTED, Lease, Settlement, Settler, unreadable
from jobbridge.broker.consume.window import Window
from jobbridge.broker.errors import SessionLost, Unreadable
from jobbridge.broker.options import NOBODY
from jobbridge.broker.session import Row, Session
from jobbridge.broker.topology import declared, forget_declared, is_declared

if TYPE_CHECKING:
    from jobbridge.broker.transport import Transport

logger = get_logger(__name__)

_TYPES = frozenset(["direct", "topic", "fanout"])


class Channel(bases.Channel):
    """A channel of the Postgres transport."""

    QoS = Window
    supports_fanout = True
    #: Bodies are stored as they come: the column is binary.
    body_encoding = None  # type: ignore[assignment]  # kombu's own option; the stubs know only its default
    from_transport_options = ("deadletter_queue",)

    connection: Transport
    _qos: Window | None

    def __init__(self, connection: Transport, **kwargs: Any) -> None:
        super().__init__(connection, **kwargs)
        #: Of the queues that are consumed here: whether their messages are acknowledged.
        self.consumed: dict[str, bool] = {}

    def _configure_entity_tablenames(self, opts: Mapping[str, Any]) -> None:
        """Do nothing: the tables have fixed names, made by migrations."""

    def _open(self) -> Any:
        return self.connection.engine

    @property
    def own_session(self) -> Session:
        return self.connection.session

    @property
    def window(self) -> Window:
        window = self.qos
        assert isinstance(window, Window)
        return window

    # -- publishing

    def basic_publish(self, message: dict[str, Any], exchange: str, routing_key: str, **kwargs: Any) -> None:
        """Store the message for the queues that it is routed to."""
        prepared = self.prepared(message, exchange, routing_key)
        stored = publishing.publish(self, prepared, exchange or "", routing_key or "")
        if not stored and self.deadletter_queue:
            publishing.publish(self, prepared, "", self.deadletter_queue)

    def prepared(self, message: dict[str, Any], exchange: str, routing_key: str) -> dict[str, Any]:
        """Complete a message as kombu's virtual channels do."""
        self._inplace_augment_message(message, exchange or "", routing_key or "")
        del message["properties"]["body_encoding"], message["properties"]["delivery_tag"]
        return message

    def encode_body(self, body: Any, encoding: str | None = None) -> tuple[Any, str]:
        return body, ""

    def create_publish_batch(self, max_size: int) -> publishing.PublishBatch:
        """Collect messages for `Producer.batch()`."""
        return publishing.PublishBatch(self, max_size)

    def _put(  # type: ignore[override]  # the stubs of kombu's two base classes disagree
        self, queue: str, payload: dict[str, Any], **kwargs: Any
    ) -> None:
        publishing.publish(self, payload, "", queue)

    # -- exchanges, queues, bindings

    def exchange_declare(
        self,
        exchange: str | None = None,
        type: str | None = "direct",
        durable: bool = False,
        auto_delete: bool = False,
        arguments: Mapping[str, Any] | None = None,
        nowait: bool = False,
        passive: bool = False,
    ) -> None:
        type = type or "direct"
        exchange = exchange or f"amq.{type}"
        if passive:
            if not self._exchange_type(exchange):
                raise _not_found("exchange", exchange, "Channel.exchange_declare")
            return
        if type not in _TYPES:
            raise ChannelError(f"Exchange {exchange!r} is of type {type!r}; use one of {sorted(_TYPES)}.")
        if self._is_new("exchange", exchange, type):
            self.own_session.run(topology.DECLARE_EXCHANGE, {"exchange": exchange, "type": type})
            if (found := self._exchange_type(exchange)) not in (type, None):
                raise virtual.base.NotEquivalentError(
                    f"Exchange {exchange!r} is of type {found!r}; it cannot be declared as {type!r}."
                )
            self._remember("exchange", exchange, type)

    def _exchange_type(self, exchange: str) -> str | None:
        rows = self.own_session.rows(topology.EXCHANGE_TYPE, {"exchange": exchange})
        return rows[0]["type"] if rows else None

    def exchange_delete(self, exchange: str, if_unused: bool = False, nowait: bool = False) -> None:
        self.own_session.run(topology.DELETE_EXCHANGE, {"exchange": exchange})
        forget_declared(self.connection.database)

    def prepare_queue_arguments(self, arguments: Mapping[str, Any] | None, **kwargs: Any) -> Any:
        return to_rabbitmq_queue_arguments(arguments or {}, **kwargs)

    def queue_declare(
        self,
        queue: str | None = None,
        passive: bool = False,
        durable: bool = False,
        exclusive: bool = False,
        auto_delete: bool = False,
        arguments: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> queue_declare_ok_t:
        """Make the queue; or, if passive, only tell its size.

        The number of messages is counted for passive declarations only: a worker should not read a backlog to start.
        """
        queue = queue or f"amq.gen-{uuid()}"
        if passive:
            if not (state := self._queue_state(queue))["is_declared"]:
                raise _not_found("queue", queue, "Channel.queue_declare")
            return queue_declare_ok_t(queue, self._size(queue), state["consumers"])
        lasts = not (exclusive or auto_delete or (arguments or {}).get("x-expires"))
        if lasts and not self._is_new("queue", queue, repr(arguments)):
            return queue_declare_ok_t(queue, 0, 0)
        topology.declare_queue(
            self.own_session,
            queue,
            is_exclusive=exclusive,
            is_auto_deleted=auto_delete,
            arguments=arguments,
        )
        if lasts:
            self._remember("queue", queue, repr(arguments))
            self._remember("queue", queue)
        return queue_declare_ok_t(queue, 0, self._queue_state(queue)["consumers"])

    def _queue_state(self, queue: str) -> Row:
        return self.own_session.one(topology.QUEUE_STATE, {"queue": queue})

    def _has_queue(self, queue: str, **kwargs: Any) -> bool:
        return bool(self._queue_state(queue)["is_declared"])

    def queue_delete(
        self, queue: str, if_unused: bool = False, if_empty: bool = False, **kwargs: Any
    ) -> None:
        if (if_empty and self._size(queue)) or (if_unused and self._queue_state(queue)["consumers"]):
            return
        self.own_session.run(topology.DELETE_QUEUES, {"queues": [queue]})
        forget_declared(self.connection.database)

    def queue_bind(
        self,
        queue: str,
        exchange: str | None = None,
        routing_key: str = "",
        arguments: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        exchange, routing_key = exchange or "amq.direct", routing_key or ""
        lasts = is_declared(self.connection.database, queue)
        if lasts and not self._is_new("binding", exchange, queue, routing_key):
            return
        topology.bind(self.own_session, exchange, queue, routing_key)
        if lasts:
            self._remember("binding", exchange, queue, routing_key)

    def queue_unbind(
        self,
        queue: str,
        exchange: str | None = None,
        routing_key: str = "",
        arguments: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        exchange, routing_key = exchange or "amq.direct", routing_key or ""
        named = {"exchange": exchange, "queue": queue, "routing_key": routing_key}
        self.own_session.run(topology.UNBIND, named)
        declared[self.connection.database].discard(("binding", exchange, queue, routing_key))

    def list_bindings(self) -> Generator[tuple[str, str, str], None, None]:
        for row in self.own_session.rows(topology.LIST_BINDINGS):
            yield row["queue"], row["exchange"], row["routing_key"]

    def get_exchanges(self) -> list[str]:
        return sorted({exchange for _, exchange, _ in self.list_bindings()})

    def get_table(self, exchange: str) -> list[tuple[str, str, str]]:
        return [(key, "", queue) for queue, name, key in self.list_bindings() if name == exchange]

    def _size(self, queue: str) -> int:
        return int(self.own_session.one(topology.QUEUE_SIZE, {"queue": queue})["size"])

    def _purge(self, queue: str) -> int:
        purged = self.own_session.run(topology.PURGE_QUEUE, {"queue": queue})
        on_purge = self.connection.options.on_purge
        return purged if on_purge is None else purged + on_purge(queue)

    def _is_new(self, *entity: str) -> bool:
        return entity not in declared[self.connection.database]

    def _remember(self, *entity: str) -> None:
        declared[self.connection.database].add(entity)

    # -- consuming

    def basic_consume(
        self,
        queue: str,
        no_ack: bool = False,
        callback: Any = None,
        consumer_tag: str | None = None,
        **kwargs: Any,
    ) -> str:
        consumer_tag = consumer_tag or uuid()
        session = self.own_session
        consumer = session.become_consumer()
        session.listen(queue)
        session.run(topology.SUBSCRIBE, {"consumer": consumer, "queue": queue})
        self.connection.orphans.adopt(session, self.connection.settler, self.connection.late)
        super().basic_consume(queue, no_ack, callback, consumer_tag, **kwargs)
        self.consumed[queue] = not no_ack
        self.connection.prefetch.look_at(queue)
        return consumer_tag

    def basic_cancel(self, consumer_tag: str) -> None:
        queue = self._tag_to_queue.get(consumer_tag)
        super().basic_cancel(consumer_tag)
        if queue is None or queue in self._active_queues:
            return
        self.consumed.pop(queue, None)
        if not self.connection.has_live_session:
            return
        self.connection.prefetch.give_back_undelivered(self, queue)
        self.own_session.unlisten(queue)
        topology.unsubscribe(self.own_session, queue)

    def basic_get(self, queue: str, no_ack: bool = False, **kwargs: Any) -> Any:
        try:
            message = self.Message(self._get(queue, no_ack=no_ack), channel=self)
        except Empty:
            return None
        if not no_ack:
            self.window.append(message, str(message.delivery_tag))
        return message

    def _get(self, queue: str, timeout: float | None = None, *, no_ack: bool = False) -> dict[str, Any]:
        looked_at = 1
        while looked_at:
            payloads, looked_at = self.take(queue, 1, is_acked=not no_ack, suspect_from=NOBODY)
            if payloads:
                return payloads[0]
        raise Empty

    def take(
        self, queue: str, limit: int, *, is_acked: bool, suspects: Sequence[int] = (), suspect_from: int = 0
    ) -> tuple[list[dict[str, Any]], int]:
        """Claim messages, count them in, and give them with their delivery tags.

        What this session has acknowledged and not written yet is written with the claim.

        Args:
            limit: Look at so many at most; those that have expired are dropped.
            suspects: Numbers of messages, of which one is claimed; else suspects are left where they are.
            suspect_from: From so many deliveries on a message is a suspect; 0: as the options say.

        Returns:
            What is to be delivered, and how many were looked at.
        """
        session, settler = self.own_session, self.connection.settler
        with self.connection.orphans.lock:
            if is_acked:
                with settler.acknowledging() as done:
                    least = suspect_from or self.connection.options.suspect_from
                    claimed = claim(session, queue, limit, suspect_from=least, suspects=suspects, done=done)
                    settler.check(len(done), claimed.acknowledged)
            else:
                claimed = take(session, queue, limit)
            counted = [self._counted_in(row, queue, is_acked=is_acked) for row in claimed.rows]
        self.connection.report_expired(claimed.expired)
        payloads = [payload for payload in counted if payload is not None]
        return payloads, len(claimed.rows) + len(claimed.expired)

    def _counted_in(self, row: Row, queue: str, *, is_acked: bool) -> dict[str, Any] | None:
        """Give the message; None: nobody could read it, so it goes to the dead letters, or is dropped if none asks."""
        tag = f"{row['id']}.{row['deliveries']}"
        if is_acked:
            consumer = self.own_session.become_consumer()
            lease = Lease(message_id=row["id"], deliveries=row["deliveries"], consumer=consumer, queue=queue)
            tag = self.window.hold(lease, self.connection.settler)
        try:
            payload = payload_of(row)
        except Unreadable as error:
            logger.error("broker.unreadable: message %s of %s: %s", row["id"], queue, error)
            if is_acked:
                self.bury(tag, str(error))
            return None
        payload["properties"]["delivery_tag"] = tag
        return payload

    # -- settling

    def bury(self, tag: str, why: str) -> None:
        """Make a dead letter of a delivery that cannot be read."""
        self.settle(tag, Settlement.REJECTED, reason=unreadable(why))

    def settle(self, tag: str, settlement: Settlement, *, reason: str = REJECTED) -> None:
        """Settle a delivery: at the next turn of the event loop, or at once where none turns."""
        window = self.window
        with window.orphans.lock:
            held = window.release(tag)
            if held is None:
                return  # settled already, or given back when the channel closed
            lease, settler = held
            settler.settle(settlement, replace(lease, reason=reason) if reason != lease.reason else lease)
        transport = self.connection
        # After the consumer is cancelled the loop may be over: a worker that shuts down finishes its tasks without it.
        if settler.session.is_alive and not (
            transport is not None and transport.prefetch.is_in_loop and self.consumed
        ):
            settler.flush_patiently()
        if transport is not None and settlement is Settlement.REQUEUED and lease.queue in self.consumed:
            transport.prefetch.look_at(lease.queue)

    def basic_recover(self, requeue: bool = False) -> None:
        if not requeue:
            raise NotImplementedError("Does not support recover(requeue=False)")
        self.window.restore_unacked()

    def give_back(self) -> None:
        """Free everything that was delivered on this channel and is not settled.

        Raises:
            SessionLost: Nothing can be freed, nor needs to be.
        """
        tags: defaultdict[Settler, list[str]] = defaultdict(list)
        held = self.window.live()
        for tag, (_, settler) in held.items():
            tags[settler].append(tag)
        for settler, each in tags.items():
            settler.give_back([held[tag][0] for tag in each])
            for tag in each:
                self.window.release(tag)

    def close(self) -> None:
        """Cancel the consumers, and free what is not settled; or keep it in mind, if the session is lost."""
        transport = self.connection
        if not self.closed and transport is not None:
            with suppress(SessionLost):
                for tag in list(self._consumers):
                    self.basic_cancel(tag)
                self.give_back()
            for tag in list(self._consumers):
                virtual.Channel.basic_cancel(self, tag)
            self.consumed.clear()
            transport.orphans.add(self.window)
        super().close()


def _not_found(kind: str, name: str, method: str) -> ChannelError:
    return ChannelError(f"NOT_FOUND - no {kind} {name!r}", (50, 10), method, 404)
