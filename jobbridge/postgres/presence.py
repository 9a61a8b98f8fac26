"""Who is here, and who is gone: one proof, and one judgement (decision 0015).

A process, or a session, that others rely on has a number, a row in `jobbridge_broker.consumers`, and a lock on the
number for as long as it lives. The row says which process it is, so that whoever runs under the same kernel need not
guess. Dead is whose lock is free and who is judged so (`verdict`); who judges takes the row away, and frees what it
held.

Numbers above `PROCESSES` are of processes: they outlive their session, and come back with the next one. The others are
of sessions, and of the release before.

What could mislead is dealt with here:

- **Everybody's lock is free** after a restart of Postgres, on a standby that was promoted, when the network was away:
  there is a grace, and it begins when somebody can look again, not when it happened (`LOOK`).
- **A session that is gone here lives on the server** (a frozen network): who comes back ends it (`Proof.hold`).
- **A process that is alive cannot prove it**: who sees the process knows better than the lock; for `LIMIT` at most,
  and by then the process has stopped what it ran.
"""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any, LiteralString

import psycopg
from psycopg.rows import dict_row

from jobbridge.postgres.locks import CONSUMERS, WORKERS

#: Processes draw their numbers above this: below are numbers of sessions, and of workers of the release before.
PROCESSES = 1 << 47
#: Nobody whose process cannot be seen counts as dead for so long after somebody can look again.
GRACE = timedelta(seconds=60)
#: A process that is there, and could not prove itself for so long, counts as dead.
LIMIT = timedelta(minutes=10)
#: It stops what it runs so long before.
MARGIN = timedelta(minutes=1)
#: Nobody looked for so long, at least: nobody could.
GAP = timedelta(seconds=6)

#: Which suspects there are; and when somebody looked, in the same statement. The row of the sweeps is written once a
#: second at most, whoever looks. The first look ever begins no grace: nobody was here before.
LOOKED: LiteralString = """
looked AS (
    INSERT INTO jobbridge_broker.sweeps AS last (only_one, server_started_at, swept_at, grace_until)
    VALUES (true, pg_postmaster_start_time(), clock_timestamp(), statement_timestamp())
    ON CONFLICT (only_one) DO UPDATE
    SET server_started_at = excluded.server_started_at,
        swept_at = excluded.swept_at,
        grace_until = CASE
            WHEN last.server_started_at <> excluded.server_started_at
                OR last.swept_at < excluded.swept_at - %(gap)s::interval
            THEN excluded.swept_at + %(grace)s::interval
            ELSE last.grace_until
        END
    WHERE last.server_started_at <> excluded.server_started_at
        OR last.swept_at < excluded.swept_at - interval '1 second'
    RETURNING grace_until
)"""

#: To be asked with LOOKED.
SUSPECTS: LiteralString = """
suspects AS (
    SELECT id AS number, host, pid, boot_id, pid_namespace, process_began, true AS has_row,
        extract(epoch FROM clock_timestamp() - coalesce(proven_at, started_at))::float AS unproven,
        clock_timestamp() >= coalesce(
            (SELECT grace_until FROM looked),
            (SELECT grace_until FROM jobbridge_broker.sweeps),
            '-infinity'
        ) AS is_grace_over
    FROM jobbridge_broker.consumers
    WHERE id IS DISTINCT FROM %(own)s::bigint
        AND pg_try_advisory_xact_lock_shared(%(consumers)s + id)
)"""

LOOK: LiteralString = f"WITH {LOOKED}, {SUSPECTS} SELECT * FROM suspects"  # noqa: S608  # of the constants above

#: Of these numbers, those whose lock is free; for who asks and does not sweep. Shared, so that two who ask do not
#: take each other for the one; given back at the end of the statement.
ASK: LiteralString = """
SELECT number, host, pid, boot_id, pid_namespace, process_began, consumer.id IS NOT NULL AS has_row,
    extract(epoch FROM clock_timestamp() - coalesce(proven_at, started_at))::float AS unproven,
    clock_timestamp() >= greatest(
        coalesce((SELECT grace_until FROM jobbridge_broker.sweeps), '-infinity'),
        CASE WHEN pg_postmaster_start_time() IS DISTINCT FROM
            (SELECT server_started_at FROM jobbridge_broker.sweeps)
        THEN pg_postmaster_start_time() + %(grace)s::interval ELSE '-infinity' END
    ) AS is_grace_over
FROM unnest(%(numbers)s::bigint[]) AS asked (number)
LEFT JOIN jobbridge_broker.consumers AS consumer ON consumer.id = number
WHERE pg_try_advisory_xact_lock_shared(%(workers)s + number)
"""

#: Of one without a row (of the release before) the lock tells. Nobody is let go while the living may come back.
IS_LET_GO: LiteralString = """
SELECT pg_try_advisory_xact_lock_shared(%(workers)s + %(number)s::bigint)
    AND NOT EXISTS (SELECT FROM jobbridge_broker.consumers WHERE id = %(number)s)
    AND NOT EXISTS (
        SELECT
        FROM jobbridge_broker.sweeps
        WHERE grace_until > clock_timestamp() OR server_started_at <> pg_postmaster_start_time()
    )
"""

#: The row becomes visible to others only when its locks are held already.
_PROVE: LiteralString = """
INSERT INTO jobbridge_broker.consumers AS consumer
    (id, host, pid, boot_id, pid_namespace, process_began, proven_at)
OVERRIDING SYSTEM VALUE
SELECT %(number)s::bigint, %(host)s, %(pid)s::integer, %(boot_id)s, %(pid_namespace)s, %(process_began)s::bigint,
    clock_timestamp()
FROM held
WHERE is_held
ON CONFLICT (id) DO UPDATE SET proven_at = excluded.proven_at
RETURNING id, pg_backend_pid() AS backend,
    (SELECT backend_start FROM pg_stat_get_activity(pg_backend_pid())) AS backend_start
"""

HOLD: LiteralString = f"""
WITH held AS (
    SELECT pg_try_advisory_lock(%(workers)s + %(number)s::bigint)
        AND pg_try_advisory_lock(%(consumers)s + %(number)s::bigint) AS is_held
){_PROVE}"""

#: Again and again: somebody may have taken the row away.
RENEWED: LiteralString = f"held AS (SELECT true AS is_held), renewed AS ({_PROVE})"

#: Of this process alone: its pid may be another's by now.
END_GHOST: LiteralString = """
SELECT pg_terminate_backend(pid)
FROM pg_stat_activity
WHERE pid = %(backend)s AND backend_start = %(backend_start)s
"""

FORGET: LiteralString = "DELETE FROM jobbridge_broker.consumers WHERE id = ANY(%(numbers)s)"


# -- processes


@dataclass(frozen=True, kw_only=True, slots=True)
class Process:
    """Which process it is, for those who run under the same kernel.

    Attributes:
        boot_id: Of the kernel's run; None where there is no /proc.
        pid_namespace: In which `pid` is a pid.
        process_began: In ticks since the boot: a pid is given again.
    """

    host: str
    pid: int
    boot_id: str | None
    pid_namespace: str | None
    process_began: int | None

    def is_gone(self) -> bool | None:
        """Whether there is no such process any more; None: that cannot be seen from here."""
        here = (_boot_id(), _pid_namespace())
        if None in here or (self.boot_id, self.pid_namespace) != here or self.process_began is None:
            return None
        return _began(self.pid) != self.process_began


def this_process() -> Process:
    """Say which process this is."""
    return Process(
        host=socket.gethostname(),
        pid=os.getpid(),
        boot_id=_boot_id(),
        pid_namespace=_pid_namespace(),
        process_began=_began(os.getpid()),
    )


@cache
def _boot_id() -> str | None:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip() or None
    except OSError:
        return None


@cache
def _pid_namespace() -> str | None:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return None


def _began(pid: int) -> int | None:
    """Say when a process began; None: there is none, or it has ended and nobody has waited for it yet."""
    try:
        # The name, in parentheses, may hold anything (man 5 proc).
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return None
    return None if state in "ZX" else int(fields[18])


# -- the judgement


class Verdict(Enum):
    """Of one whose lock is free."""

    DEAD = "dead"
    ALIVE = "alive"
    #: Only two looks can tell.
    UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True, slots=True)
class Suspect:
    """One whose lock is free.

    Attributes:
        process: None: it has no row.
        unproven: Since it last proved itself, or began.
        is_grace_over: Whoever lives had time to come back.
    """

    number: int
    process: Process | None
    unproven: timedelta
    is_grace_over: bool

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Suspect:
        """Read a row of LOOK or ASK."""
        names = ("host", "pid", "boot_id", "pid_namespace", "process_began")
        return cls(
            number=row["number"],
            process=Process(**{name: row[name] for name in names}) if row["has_row"] else None,
            unproven=timedelta(seconds=row["unproven"] or 0.0),
            is_grace_over=row["is_grace_over"],
        )


def verdict(suspect: Suspect) -> Verdict:
    """Judge by what one look tells."""
    is_gone = None if suspect.process is None else suspect.process.is_gone()
    if is_gone:
        return Verdict.DEAD
    if not suspect.is_grace_over:
        return Verdict.ALIVE if is_gone is False and suspect.number > PROCESSES else Verdict.UNKNOWN
    if suspect.process is None:
        return Verdict.DEAD  # somebody has judged before; or it is of the release before, which has no row
    if is_gone is False and suspect.number > PROCESSES:
        return Verdict.DEAD if suspect.unproven >= LIMIT else Verdict.ALIVE
    return Verdict.UNKNOWN


class Judge:
    """One who looks again and again, and remembers the look before."""

    def __init__(self) -> None:
        self._seen: set[int] = set()

    def dead(self, suspects: Iterable[Suspect]) -> list[int]:
        """Give the numbers of those that count as dead from now on.

        Args:
            suspects: All that this look found.
        """
        found = {suspect.number: suspect for suspect in suspects}
        seen, self._seen = self._seen, set(found)
        return sorted(number for number, suspect in found.items() if _is_dead(suspect, number in seen))


def _is_dead(suspect: Suspect, was_seen: bool) -> bool:
    judged = verdict(suspect)
    return judged is Verdict.DEAD or (judged is Verdict.UNKNOWN and was_seen and suspect.is_grace_over)


def look_parameters(own: int | None, interval: float) -> dict[str, Any]:
    """Give what LOOK takes.

    Args:
        own: The number of who looks; None: it has none.
        interval: Seconds to its next look.
    """
    gap = max(GAP, timedelta(seconds=4 * interval))
    return {"own": own, "consumers": CONSUMERS, "gap": gap, "grace": GRACE}


def look(connection: psycopg.Connection[Any], parameters: Mapping[str, Any]) -> list[Suspect]:
    """Look for the dead, and note that somebody did."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return [Suspect.of(row) for row in cursor.execute(LOOK, parameters).fetchall()]


def ask(
    connection: psycopg.Connection[Any], numbers: Iterable[int], *, grace: timedelta = GRACE
) -> list[Suspect]:
    """Give those of these workers whose lock is free.

    Args:
        connection: In autocommit mode.
        numbers: Of workers.
        grace: After a restart of the server of which no sweeper has noticed yet.
    """
    parameters = {"numbers": list(numbers), "workers": WORKERS, "grace": grace}
    with connection.cursor(row_factory=dict_row) as cursor:
        return [Suspect.of(row) for row in cursor.execute(ASK, parameters).fetchall()]


# -- the proof


def draw_number() -> int:
    """Give a number that no other process has."""
    return PROCESSES + 1 + secrets.randbits(46)


@dataclass(frozen=True, slots=True)
class _Backend:
    pid: int
    started_at: datetime


class Proof:
    """That this process is here, under its number. One session holds it at a time.

    Attributes:
        number: Drawn at once, so that it is known before a pool forks.
        pid: Of the process that it is of; a forked child has none of it.
    """

    def __init__(self) -> None:
        self.number = draw_number()
        self.pid = os.getpid()
        self._backend: _Backend | None = None
        self._is_held = False
        self._proven_at = self._held_since = time.monotonic()

    @property
    def is_held(self) -> bool:
        """Whether a session holds it, as far as is known, and this is the process that it is of."""
        return self._is_held and self.pid == os.getpid()

    @property
    def unproven_for(self) -> timedelta:
        """Tell how long ago it last proved itself, by this host's clock."""
        return timedelta(seconds=time.monotonic() - self._proven_at)

    @property
    def held_for(self) -> timedelta:
        """Tell how long the proof has been held without a break; nothing, if it is not."""
        return timedelta(seconds=time.monotonic() - self._held_since) if self._is_held else timedelta()

    @property
    def parameters(self) -> dict[str, Any]:
        """Give what HOLD and RENEWED take."""
        process = this_process()
        named = {name: getattr(process, name) for name in Process.__slots__}
        return named | {"number": self.number, "workers": WORKERS, "consumers": CONSUMERS}

    def hold(self, connection: psycopg.Connection[Any]) -> bool:
        """Have this session hold the proof; False while the session before it still does, which is being ended.

        Raises:
            psycopg.Error: The session is gone, or the tables are not there.
        """
        row = connection.execute(HOLD, self.parameters).fetchone()
        if row is None:
            if self._backend is not None:
                ghost = {"backend": self._backend.pid, "backend_start": self._backend.started_at}
                connection.execute(END_GHOST, ghost)
            return False
        self._backend = _Backend(*row[1:])
        self._proven_at = self._held_since = time.monotonic()
        self._is_held = True
        return True

    def renewed(self) -> None:
        """Note that the session that holds it has answered."""
        self._proven_at = time.monotonic()

    def lost(self) -> None:
        """Note that the session is gone."""
        self._is_held = False


def is_let_go(connection: psycopg.Connection[Any], number: int) -> bool:
    """Tell whether what this worker held may be given to others: it was judged dead, and its row taken away."""
    row = connection.execute(IS_LET_GO, {"workers": WORKERS, "number": number}).fetchone()
    return row is not None and bool(row[0])
