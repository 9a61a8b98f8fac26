"""The transport that kombu loads for `jobbridge+postgresql://…`.

`driver_type` decides what Celery 5.7 switches on. It is our own word, neither `redis` nor `amqp`:

- events work (`sql`, of kombu's SQLAlchemy transport, turns them off), over a topic exchange. Under `redis` they
  would go over a fanout exchange, so that every worker's gossip would receive every task's events;
- mingle and gossip stay off, since Celery lists the drivers that have them. Mingle copies the ids of revoked tasks
  to a new worker. Whoever wants that adds the name to `celery.worker.consumer.mingle.Mingle.compatible_transports`;
- no code meant for AMQP's sockets runs (`celery.worker.loops`, native delayed delivery).
"""

from __future__ import annotations

import functools
import os
import socket
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any

import psycopg
from kombu.log import get_logger
from kombu.transport import virtual

from jobbridge.broker import bases, register, urls
from jobbridge.broker.channel import Channel as PostgresChannel
from jobbridge.broker.consume import sweeping
from jobbridge.broker.consume.prefetch import Prefetch
from jobbridge.broker.consume.settling import LateAcknowledgements, Settler, headers_of
from jobbridge.broker.consume.window import Orphans
from jobbridge.broker.errors import NotNow, SessionLost
from jobbridge.broker.options import Options, unknown_option
from jobbridge.broker.publishing import needs_no_session
from jobbridge.broker.session import SETTINGS, Row, Session
from jobbridge.broker.topology import forget_declared
from jobbridge.postgres.address import Address
from jobbridge.postgres.connect import Connection, connect
from jobbridge.postgres.target import Target

if TYPE_CHECKING:
    from sqlalchemy import Engine

logger = get_logger(__name__)

#: By process and database.
_late: defaultdict[tuple[int, str], LateAcknowledgements] = defaultdict(LateAcknowledgements)
_orphans: defaultdict[tuple[int, str], Orphans] = defaultdict(Orphans)


class Transport(bases.Transport):
    """One connection of kombu: at most one session with Postgres.

    Args:
        client: The `kombu.Connection`. The password is moved out of its `hostname`, which `inspect stats` shows.
    """

    Channel = PostgresChannel
    can_parse_url = True
    default_port = 5432
    driver_type = "postgresql"
    driver_name = "psycopg"
    polling_interval = None

    implements = virtual.Transport.implements.extend(
        asynchronous=True,
        batch_publish=True,
        exchange_type=frozenset(["direct", "topic", "fanout"]),
    )

    connection_errors: tuple[type[BaseException], ...] = (
        *virtual.Transport.connection_errors,
        SessionLost,
        NotNow,
    )
    recoverable_connection_errors = connection_errors
    recoverable_channel_errors = ()

    client: Any

    def __init__(self, client: Any, **kwargs: Any) -> None:
        super().__init__(client, **kwargs)
        self.options = Options.of(client.transport_options or {})
        self.url = self._take_url(client)
        self.prefetch = Prefetch(self)
        self._session: Session | None = None
        self._settler: Settler | None = None

    def _take_url(self, client: Any) -> Address:
        if client.cycle is not None and not isinstance(client.cycle, urls.WholeUrls):
            client.cycle = urls.WholeUrls(client.cycle)
        register()  # clones are looked up by the alias
        if "://" not in str(client.hostname or ""):
            return urls.from_parts(
                host=client.hostname,
                port=client.port,
                user=client.userid,
                password=client.password,
                database=client.virtual_host,
            )
        url = urls.parse(str(client.hostname))
        client.hostname, password = urls.without_password(url)
        if password is not None:
            client.password = password
        elif client.password:
            url = url.with_password(client.password)
        client.uri_prefix = "jobbridge"
        return url

    # -- the session

    @functools.cached_property
    def engine(self) -> Engine:
        """A SQLAlchemy engine over our connections, with the caller's options for it."""
        from sqlalchemy import create_engine

        try:
            url = self.url.sqlalchemy_url()
            return create_engine(url, **{"creator": self._connect, **self.options.engine})
        except TypeError as error:
            raise unknown_option(error, self.options) from error

    def _open_connection(self) -> Connection:
        """Open the session's connection: by the engine, if somebody has said something about it."""
        if not self.options.engine:
            return self._connect()
        connection = self.engine.raw_connection()
        driver_connection = connection.driver_connection
        assert isinstance(driver_connection, Connection)
        # The pool would keep the connection with its LISTENs and locks, and hand it to somebody else.
        connection.detach()
        return driver_connection

    def _connect(self) -> Connection:
        parameters = dict(self.options.engine.get("connect_args", {}))
        if timeout := self.client.connect_timeout:
            # kombu's own, unless the URL says better. libpq takes whole seconds, and two at least.
            parameters = {"connect_timeout": max(int(timeout), 2), **self.target.parameters, **parameters}
        return connect(self.target, "broker", settings=SETTINGS, parameters=parameters, must_write=True)

    @functools.cached_property
    def target(self) -> Target:
        return Target.of(self.url.written())

    @functools.cached_property
    def database(self) -> str:
        """Which database it is, without a password: what is remembered of it is kept under this name."""
        return self.url.with_password(None).written()

    @property
    def session(self) -> Session:
        """The session, opened if there is none in this process.

        Raises:
            SessionLost: It ended, or cannot be opened.
        """
        session = self._session
        if (
            session is None
            or session.pid != os.getpid()
            or (not session.is_alive and session.consumer is None)
        ):
            return self._open_session()
        if not session.is_alive:
            raise SessionLost("The session with Postgres has ended.")
        return session

    def _open_session(self) -> Session:
        if self._session is not None:
            forget_declared(self.database)
        self._settler = None
        self._session = Session(self._open_connection, self.target, self.options.number_of_process)
        self._session.close_callbacks.append(self.prefetch.end_consumer)
        return self._session

    @property
    def has_live_session(self) -> bool:
        return self._session is not None and self._session.is_alive

    @property
    def settler(self) -> Settler:
        if self._settler is None:
            self._settler = Settler(
                self.session,
                self.late,
                lock=self.orphans.lock,
                deliveries_allowed=self.options.deliveries_allowed,
                on_dead_letters=self.report_dead_letters,
            )
            self.orphans.settlers.add(self._settler)
        return self._settler

    @property
    def late(self) -> LateAcknowledgements:
        return _late[os.getpid(), self.database]

    @property
    def orphans(self) -> Orphans:
        return _orphans[os.getpid(), self.database]

    @property
    def open_channels(self) -> list[PostgresChannel]:
        return [channel for channel in self.channels or () if isinstance(channel, PostgresChannel)]

    # -- what kombu calls

    def establish_connection(self) -> Transport:
        if self._session is not None and not self._session.is_alive:
            self.prefetch.leave_loop()
            self._session = None
            forget_declared(self.database)
        if not needs_no_session():
            self.session  # noqa: B018  # opens it, or raises
        return super().establish_connection()

    def verify_connection(self, connection: Any) -> bool:
        session = self._session
        return session.is_alive if session is not None else connection is self

    def close_connection(self, connection: Any) -> None:
        self.prefetch.leave_loop()
        if self.has_live_session:
            with suppress(*self.connection_errors):
                self.settler.flush_patiently()
        try:
            super().close_connection(connection)
        finally:
            if self._session is not None:
                self._session.close()
            self._session = None
            if "engine" in self.__dict__:
                self.__dict__.pop("engine").dispose(close=False)

    def drain_events(self, connection: Any, timeout: float | None = None, **kwargs: Any) -> None:
        """Deliver one message.

        Raises:
            TimeoutError: None came within `timeout` seconds.
        """
        deadline = None if timeout is None else monotonic() + timeout
        while not self.prefetch.deliver_one():
            left = self.options.poll_interval if deadline is None else deadline - monotonic()
            if left <= 0:
                raise socket.timeout  # noqa: UP041  # what kombu's callers catch by this name
            self.prefetch.wait(left)

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        self.prefetch.join_loop(loop)

    def unregister_from_event_loop(self, connection: Any, loop: Any) -> None:
        self.prefetch.leave_loop()

    def as_uri(self, uri: str, include_password: bool = False, mask: str = "**") -> str:
        return urls.shown(self.url, password=self.url.password if include_password else mask)

    def driver_version(self) -> str:
        return psycopg.__version__

    @property
    def default_connection_params(self) -> dict[str, Any]:
        return {"port": self.default_port, "hostname": "localhost"}

    def bury(self, dead: list[int]) -> None:
        """Free what these consumers held, who are dead."""
        self.report_dead_letters(sweeping.bury(self.session, dead, self.options))

    # -- hooks

    def report_expired(self, rows: Iterable[Row]) -> None:
        """Tell of messages that were dropped because their time to live was over."""
        for row in rows:
            headers = headers_of(row)
            logger.info("broker.expired: %s", headers.get("id"))
            if self.options.on_expired is not None:
                self._call(self.options.on_expired, headers)

    def report_dead_letters(self, rows: Iterable[Row]) -> None:
        """Tell of messages that became dead letters."""
        for row in rows:
            headers = headers_of(row)
            logger.error("broker.dead_letter: %s (%s)", headers.get("id"), row["reason"])
            if self.options.on_dead_letter is not None:
                self._call(self.options.on_dead_letter, headers, row["reason"])

    def report_delivered(self) -> None:
        """Tell that what was claimed together has been delivered."""
        if self.options.on_delivered is not None:
            self.options.on_delivered()

    def _call(self, hook: Any, *arguments: Any) -> None:
        # The messages are gone from the queue already: a failing hook must not stop the consumer.
        try:
            hook(*arguments)
        except Exception:
            logger.exception("broker.hook_failed: %r", hook)
