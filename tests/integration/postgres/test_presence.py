"""Who is dead: by the process where it can be seen, by two looks elsewhere, and never in the grace."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, LiteralString

import psycopg
import pytest

from jobbridge.dev.postgres import PostgresServer
from jobbridge.postgres import presence
from jobbridge.postgres.presence import LIMIT, PROCESSES, Judge, Proof, Verdict, draw_number, verdict
from tests.proxy import Proxy
from tests.support import clean_environment, wait_until

#: Holds a proof in a process of its own, and says its number.
HOLDER = """
import sys, time, psycopg
from jobbridge.postgres.presence import Proof
proof, connection = Proof(), psycopg.connect(sys.argv[1], autocommit=True)
assert proof.hold(connection)
print(proof.number, flush=True)
time.sleep(600)
"""


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def other(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


class Holder:
    """A process that holds a proof."""

    def __init__(self, url: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, url], stdout=subprocess.PIPE, text=True, env=clean_environment()
        )
        assert self._process.stdout is not None
        self.number = int(self._process.stdout.readline())

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


@pytest.fixture
def holder(database_url: str) -> Iterator[Holder]:
    holder = Holder(database_url)
    yield holder
    holder.kill()


def _dead(connection: psycopg.Connection[Any], judge: Judge, *, interval: float = 3.0) -> list[int]:
    return judge.dead(presence.look(connection, presence.look_parameters(None, interval)))


def _killed(connection: psycopg.Connection[Any], holder: Holder) -> None:
    """Kill it, and wait until its lock is free."""
    holder.kill()
    wait_until(lambda: presence.ask(connection, [holder.number]), message="the server ended its session")


def _elsewhere(connection: psycopg.Connection[Any]) -> None:
    """Have all processes run under another kernel."""
    connection.execute("UPDATE jobbridge_broker.consumers SET boot_id = 'another'")


def _lose_session(connection: psycopg.Connection[Any], other: psycopg.Connection[Any], proof: Proof) -> None:
    """End the session that holds the proof."""
    connection.close()
    wait_until(lambda: presence.ask(other, [proof.number]), message="the server ended the session")


def test_who_holds_the_proof_is_no_suspect(connection: psycopg.Connection[Any], holder: Holder) -> None:
    judge = Judge()

    assert [_dead(connection, judge) for _ in range(3)] == [[], [], []]
    assert presence.ask(connection, [holder.number]) == []


def test_a_killed_process_is_dead_at_the_first_look(
    connection: psycopg.Connection[Any], holder: Holder
) -> None:
    _killed(connection, holder)

    assert _dead(connection, Judge()) == [holder.number]


def test_a_killed_process_is_dead_in_the_grace_too(
    connection: psycopg.Connection[Any], holder: Holder
) -> None:
    _dead(connection, Judge())
    _begin_grace(connection, "server_started_at = server_started_at - interval '1 hour'")
    _killed(connection, holder)

    assert _dead(connection, Judge()) == [holder.number]


def test_a_process_that_lives_is_not_dead_although_its_lock_is_free(
    connection: psycopg.Connection[Any], other: psycopg.Connection[Any]
) -> None:
    proof, judge = Proof(), Judge()
    assert proof.hold(connection)

    _lose_session(connection, other, proof)

    assert [_dead(other, judge) for _ in range(3)] == [[], [], []]
    (suspect,) = presence.ask(other, [proof.number], grace=timedelta())
    assert verdict(suspect) is Verdict.ALIVE


def test_a_process_that_lives_and_could_not_prove_itself_for_long_is_dead(
    connection: psycopg.Connection[Any], other: psycopg.Connection[Any]
) -> None:
    proof = Proof()
    proof.hold(connection)
    _lose_session(connection, other, proof)
    other.execute("UPDATE jobbridge_broker.consumers SET proven_at = now() - %s", [LIMIT])

    assert _dead(other, Judge()) == [proof.number]


def test_a_process_that_cannot_be_seen_is_dead_in_two_looks(
    connection: psycopg.Connection[Any], holder: Holder
) -> None:
    judge = Judge()
    _elsewhere(connection)
    _killed(connection, holder)

    assert _dead(connection, judge) == []
    assert _dead(connection, judge) == [holder.number]


def test_who_is_back_at_the_second_look_is_not_dead(
    connection: psycopg.Connection[Any], other: psycopg.Connection[Any], database_url: str
) -> None:
    proof, judge = Proof(), Judge()
    proof.hold(connection)
    _elsewhere(other)
    _lose_session(connection, other, proof)
    assert _dead(other, judge) == []

    with psycopg.connect(database_url, autocommit=True) as again:
        assert proof.hold(again)

        assert _dead(other, judge) == []


def _begin_grace(connection: psycopg.Connection[Any], change: LiteralString) -> None:
    connection.execute("UPDATE jobbridge_broker.sweeps SET " + change)


@pytest.mark.parametrize(
    "change",
    [
        # As a restart, and a standby that was promoted: it has the rows, and began at another time.
        "server_started_at = server_started_at + interval '1 second'",
        "server_started_at = server_started_at - interval '1 day'",
        # As an outage: nobody could look.
        "swept_at = swept_at - interval '13 seconds'",
    ],
)
def test_a_grace_begins_when_somebody_can_look_again(
    change: LiteralString, connection: psycopg.Connection[Any], holder: Holder
) -> None:
    judge = Judge()
    _dead(connection, judge)
    _elsewhere(connection)
    _begin_grace(connection, change)
    _killed(connection, holder)

    assert [_dead(connection, judge) for _ in range(3)] == [[], [], []]
    (suspect,) = presence.ask(connection, [holder.number], grace=timedelta())
    assert verdict(suspect) is Verdict.UNKNOWN

    _begin_grace(connection, "grace_until = now()")
    assert _dead(connection, judge) == [holder.number]


def test_a_sweeper_that_comes_rarely_begins_no_grace(
    connection: psycopg.Connection[Any], holder: Holder
) -> None:
    judge = Judge()
    _elsewhere(connection)
    _killed(connection, holder)
    _dead(connection, judge, interval=10)
    _begin_grace(connection, "swept_at = swept_at - interval '13 seconds'")

    assert _dead(connection, judge, interval=10) == [holder.number]


def test_a_number_of_a_session_is_judged_by_its_lock_while_the_process_lives(
    connection: psycopg.Connection[Any], other: psycopg.Connection[Any]
) -> None:
    proof, judge = Proof(), Judge()
    proof.number = 7
    proof.hold(connection)
    _lose_session(connection, other, proof)

    assert _dead(other, judge) == []
    assert _dead(other, judge) == [7]


def test_who_was_judged_is_dead_for_everybody(connection: psycopg.Connection[Any], holder: Holder) -> None:
    _elsewhere(connection)
    _killed(connection, holder)
    (before,) = presence.ask(connection, [holder.number], grace=timedelta())

    connection.execute(presence.FORGET, {"numbers": [holder.number]})

    (after,) = presence.ask(connection, [holder.number], grace=timedelta())
    assert (verdict(before), verdict(after)) == (Verdict.UNKNOWN, Verdict.DEAD)


def test_a_pid_that_is_given_again_is_another_process() -> None:
    here = presence.this_process()

    assert here.is_gone() is False
    assert presence.Process(**_fields(here) | {"process_began": 1}).is_gone() is True
    assert presence.Process(**_fields(here) | {"pid_namespace": "pid:[1]"}).is_gone() is None
    assert presence.Process(**_fields(here) | {"boot_id": None}).is_gone() is None


def _fields(process: presence.Process) -> dict[str, Any]:
    return {name: getattr(process, name) for name in presence.Process.__slots__}


def test_a_process_that_nobody_has_waited_for_is_gone() -> None:
    child = os.fork()
    if child == 0:
        signal.pause()
    began = presence._began(child)
    os.kill(child, signal.SIGKILL)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)  # it is a zombie from now on

    assert began is not None
    assert presence._began(child) is None
    os.waitpid(child, 0)


def test_who_comes_back_ends_its_own_session_on_a_frozen_connection(
    postgres: PostgresServer, database_url: str, connection: psycopg.Connection[Any]
) -> None:
    proof = Proof()
    with Proxy(postgres.port) as proxy:
        frozen = psycopg.connect(
            database_url.replace(f":{postgres.port}/", f":{proxy.address.rpartition(':')[2]}/"),
            autocommit=True,
        )
        assert proof.hold(frozen)
        proxy.freeze()

        assert not proof.hold(connection)  # it has just been ended
        wait_until(lambda: proof.hold(connection), timeout=5, message="the proof is held again")
    frozen.close()


def test_another_process_with_that_number_is_not_ended(
    connection: psycopg.Connection[Any], other: psycopg.Connection[Any]
) -> None:
    first, second = Proof(), Proof()
    second.number = first.number
    assert first.hold(connection)

    assert not second.hold(other)
    assert not second.hold(other)
    assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_row_that_was_taken_away_comes_back_with_the_next_renewal(
    connection: psycopg.Connection[Any], other: psycopg.Connection[Any]
) -> None:
    proof = Proof()
    proof.hold(connection)
    other.execute(presence.FORGET, {"numbers": [proof.number]})

    connection.execute(f"WITH {presence.RENEWED} SELECT", proof.parameters)

    row = other.execute("SELECT id, pid, proven_at IS NOT NULL FROM jobbridge_broker.consumers").fetchone()
    assert row == (proof.number, os.getpid(), True)


def test_numbers_of_processes_fit_into_the_keys_and_meet_no_other() -> None:
    numbers = {draw_number() for _ in range(1000)}

    assert len(numbers) == 1000
    assert all(PROCESSES < number < 1 << 48 for number in numbers)
