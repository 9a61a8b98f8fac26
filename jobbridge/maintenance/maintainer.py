"""Runs services, each in one process at a time.

A maintainer holds one session with Postgres, and on it a lock for each service that it leads. When it dies its
session ends, and within seconds another one leads. Before each run it looks whether that session is there still: who
has lost it has lost the lead. A run is written down, on that very session, when it did something; else every five
minutes.

What if it dies within a run? A service may be interrupted anywhere: each of its changes is a guarded event, or a
statement of its own. For a moment two may run the same service (the session was lost within a run): that is harmless
for the same reason.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Protocol

import psycopg

from jobbridge.errors import DatabaseError, EngineUnavailable
from jobbridge.postgres import locks
from jobbridge.postgres.caller_connection import DriverConnection
from jobbridge.postgres.connect import close, connect, is_there
from jobbridge.store.database import Database
from jobbridge.store.workers import services

logger = logging.getLogger(__name__)

#: How often a maintainer that does not lead a service tries to, in seconds; also between two looks at the clock.
TURN = 1.0
#: How often it tries to, in seconds: a statement.
LEAD_EVERY = 10.0
#: A service that does nothing is written down so often, in seconds.
NOTE_EVERY = 300.0
#: After a lost session: between two tries to get another one, in seconds.
LONGEST_PAUSE = 10.0


class Service(Protocol):
    """One thing that is looked after.

    Attributes:
        name: As in `job_services`.
        interval: From the end of one run to the beginning of the next.
    """

    name: str
    interval: timedelta

    def run(self, stopped: threading.Event) -> Mapping[str, int]:
        """Do what is to be done now, within seconds; give what was done, by counter.

        Args:
            stopped: Set when it should come to an end.
        """
        ...


class Maintainer:
    """Leads what it can of these services, and runs them when they are due.

    Args:
        database: Whose jobs.
        offered: The services.
        holder: How this process is called in `job_services`.
    """

    def __init__(self, database: Database, offered: Sequence[Service], *, holder: str) -> None:
        self._database = database
        self._services = {service.name: service for service in offered}
        self._holder = holder
        self._pid = os.getpid()
        self._due_at: dict[str, float] = {}  # of those that it leads
        self._lead_at = 0.0
        self._note_at: dict[str, float] = {}
        self._runs: Counter[str] = Counter()  # that are not written down yet
        self._connection: DriverConnection | None = None
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def leads(self) -> set[str]:
        """The names of the services that it runs now."""
        return set(self._due_at)

    def start(self) -> None:
        """Run on a thread until `stop`."""
        self._thread = threading.Thread(target=self.run, name="jobbridge-maintainer", daemon=True)
        self._thread.start()

    def stop(self, *, timeout: float = 5.0) -> None:
        """Come to an end, and let others lead. Does nothing in a forked child."""
        if self._pid != os.getpid():
            return
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(timeout)
        self._let_go()

    def run(self) -> None:
        """Run on this thread until `stop`."""
        pause = TURN
        while not self._stopped.wait(pause):
            try:
                self.turn()
                pause = TURN
            except (psycopg.Error, DatabaseError) as error:
                logger.warning("maintainer.session_lost", extra={"error": str(error)})
                self._let_go()
                pause = min(pause * 2, LONGEST_PAUSE)
        self._let_go()

    def turn(self) -> None:
        """Take the lead of what nobody leads, and run what is due.

        Raises:
            psycopg.Error: The session is lost.
            DatabaseError: There is none to be had.
        """
        connection = self._connection = self._connection or connect(
            self._database.target, "services", keeps_session=True, must_write=True
        )
        if not is_there(connection):
            raise psycopg.OperationalError("The session that leads has ended.")
        others = [name for name in self._services if name not in self._due_at]
        if others and time.monotonic() >= self._lead_at:
            self._lead_at = time.monotonic() + LEAD_EVERY
            for name in sorted(locks.lead(connection, others)):
                services.note_start(connection, name, self._holder)
                self._due_at[name] = self._note_at[name] = 0.0
        for name, due_at in sorted(self._due_at.items(), key=lambda item: item[1]):
            if due_at <= time.monotonic() and not self._stopped.is_set():
                self._run(connection, self._services[name])

    def _run(self, connection: DriverConnection, service: Service) -> None:
        began = time.monotonic()
        self._runs[service.name] += 1
        try:
            counters = service.run(self._stopped)
        except EngineUnavailable as error:
            self._note_failure(connection, service.name, str(error))
        except DatabaseError as error:
            # Ours, or the services' own connections; if ours, this does not come through either.
            self._note_failure(connection, service.name, str(error))
        except Exception as error:
            logger.exception("service.failed", extra={"service": service.name})
            self._note_failure(connection, service.name, f"{type(error).__name__}: {error}")
        else:
            if any(counters.values()):
                logger.info("service.ran", extra={"service": service.name, **counters})
            if any(counters.values()) or began >= self._note_at[service.name]:
                took = timedelta(seconds=time.monotonic() - began)
                runs = self._runs.pop(service.name)
                services.note_end(connection, service.name, {"runs": runs, **counters}, took=took)
                self._note_at[service.name] = began + NOTE_EVERY
        finally:
            self._due_at[service.name] = time.monotonic() + service.interval.total_seconds()

    def _note_failure(self, connection: DriverConnection, name: str, error: str) -> None:
        services.note_failure(connection, name, error)
        self._note_at[name] = 0.0  # that it is over is written down at once

    def _let_go(self) -> None:
        self._due_at.clear()
        self._lead_at = 0.0
        if self._connection is not None:
            close(self._connection)
            self._connection = None
