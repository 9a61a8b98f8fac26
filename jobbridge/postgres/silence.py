"""A server that says nothing: is the statement slow, or is nobody there?

TCP's own time-outs see a host that vanished. They do not see one whose kernel still acknowledges while the server
behind it is stopped, nor a proxy that holds the line and has lost the other side. So who waits for an answer longer
than `PATIENCE` asks over a second connection, in a thread, whether its session is still at work; however long a
statement takes, it is left alone as long as it is.

What cannot be seen: a session that is frozen alone, by a debugger say; and an idle one, on which nobody waits.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Mapping
from typing import Any, Final, TypeVar

import psycopg

from jobbridge.postgres.faults import Kind, has_answered, kind_of

#: Seconds without an answer before somebody asks, and then between two probes.
PATIENCE: Final = 10.0
#: Seconds that a probe may take to connect.
PROBE_TIMEOUT: Final = 5

_STATE = "SELECT state FROM pg_stat_activity WHERE pid = %s"
#: Shown for the sessions of others; also a pooler's client has another number than its server.
_UNKNOWN = ("active", "disabled", "fastpath function call")

_Result = TypeVar("_Result")


class Silence(psycopg.OperationalError):
    """Nobody answers at the other end of a connection. It has no SQLSTATE: the connection is lost."""


def attended(
    waiting: Generator[Any, Any, _Result],
    pgconn: psycopg.pq.abc.PGconn,
    is_at_work: Callable[[], bool],
) -> Generator[Any, Any, _Result]:
    """Go through psycopg's own steps of a wait, and end it when nobody is there any more.

    Args:
        waiting: Yields what it waits for, and is sent what is ready: nothing, ten times a second, while it waits.
        pgconn: Whose socket it waits on.
        is_at_work: Asks; may take some seconds.

    Raises:
        Silence: The session is gone, or nothing answers.
    """
    try:
        wanted = next(waiting)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]  # the value of a generator's StopIteration
    quiet_since = time.monotonic()
    probe: _Probe | None = None
    while True:
        ready = yield wanted
        if ready or pgconn.transaction_status != psycopg.pq.TransactionStatus.ACTIVE:
            quiet_since, probe = time.monotonic(), None
        elif probe is None and time.monotonic() - quiet_since >= PATIENCE:
            probe = _Probe(is_at_work)
        elif probe is not None and (probe.is_over or probe.is_late):
            if not probe.is_at_work:
                waiting.close()
                pgconn.finish()
                raise Silence("Postgres does not answer, and the session is gone")
            quiet_since, probe = time.monotonic(), None
        try:
            wanted = waiting.send(ready)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]  # see above


class _Probe:
    def __init__(self, is_at_work: Callable[[], bool]) -> None:
        self.is_over = self.is_at_work = False
        self._began_at = time.monotonic()
        self._ask = is_at_work
        threading.Thread(target=self._run, name="jobbridge probe", daemon=True).start()

    @property
    def is_late(self) -> bool:
        return time.monotonic() - self._began_at > 2 * PROBE_TIMEOUT

    def _run(self) -> None:
        try:
            self.is_at_work = self._ask()
        finally:
            self.is_over = True


def is_session_at_work(parameters: Mapping[str, Any], backend_pid: int, *, is_pooled: bool) -> bool:
    """Ask over a connection of its own whether a session still works on a statement.

    Args:
        parameters: How to connect.
        backend_pid: Of the session, as its client knows it.
        is_pooled: A pooler stands between: its numbers are its own, so only whether it answers can be asked.
    """
    try:
        with psycopg.connect(**parameters, autocommit=True) as probing:
            row = probing.execute(_STATE, [backend_pid]).fetchone()
    except psycopg.Error as error:
        # Somebody who answers that there is no room is there.
        return kind_of(error) is not Kind.LOST or has_answered(error)
    return is_pooled or (row is not None and row[0] in _UNKNOWN)
