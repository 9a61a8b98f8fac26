"""A worker loses its sessions with Postgres: what its pool's processes were handed runs once, and is heard of."""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import termios
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest

from jobbridge.dev.process import ManagedProcess
from tests.parity.conftest import World
from tests.support import wait_until

#: More than a pipe holds (Linux: 64 kB).
LARGE, FULL = 300_000, 60_000


def end_sessions(world: World) -> None:
    """Terminate the worker's sessions with its broker, and wait until it has others."""
    mine = "datname = current_database() AND application_name ~ 'worker .* broker$'"
    with psycopg.connect(world.database_url, autocommit=True) as connection:

        def pids() -> set[int]:
            rows = connection.execute(f"SELECT pid FROM pg_stat_activity WHERE {mine}".encode())
            return {pid for (pid,) in rows.fetchall()}

        before = pids()
        assert before
        connection.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {mine}".encode())
        wait_until(lambda: not before & pids())


def children(worker: ManagedProcess) -> set[int]:
    text = Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text()
    return {int(pid) for pid in text.split()}


def unread(pid: int) -> dict[str, int]:
    """Give how many bytes wait in each pipe that a process has open: all that its pool talks through."""
    found = {}
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            name = str(link.readlink())
            if not name.startswith("pipe:"):
                continue
            pipe = os.open(link, os.O_RDONLY | os.O_NONBLOCK)
            try:
                (size,) = struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, b"\0" * 4))
                found[name] = size
            finally:
                os.close(pipe)
    return {name: size for name, size in found.items() if size}


def reconnects(worker: ManagedProcess, times: int) -> bool:
    return worker.log().count("Connected to") > times


def test_what_was_handed_to_a_process_stays_with_it(own_world: World) -> None:
    """Three processes: one was handed a job, one half of a large one, and one has given half of a large failure."""
    worker = own_world.worker("-P", "prefork", "-c", "3")
    giving = own_world.task("hold_large").delay("", LARGE)
    wait_until(lambda: own_world.lines(giving, "hold.pids"))
    giver = int(own_world.lines(giving, "hold.pids")[0])
    stopped = children(worker) - {giver}
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    handed = [own_world.task("hold").delay(), own_world.task("hold_large").delay("y" * LARGE, 0)]
    wait_until(lambda: len(unread(worker.pid)) == 2, message="they were handed")
    before = wait_until(
        lambda: max((found := unread(worker.pid)).values()) > FULL and found, message="a pipe is full"
    )
    os.kill(worker.pid, signal.SIGSTOP)
    own_world.release(giving)
    wait_until(
        lambda: any(size > FULL for pipe, size in unread(giver).items() if pipe not in before),
        message="it gives its result, and nobody reads",
    )
    os.kill(giver, signal.SIGSTOP)
    os.kill(worker.pid, signal.SIGCONT)
    wait_until(lambda: unread(worker.pid) == before, message="half of the result is read")

    connected = worker.log().count("Connected to")
    end_sessions(own_world)
    wait_until(lambda: reconnects(worker, connected), message="it has a session again")
    for pid in {*stopped, giver}:
        os.kill(pid, signal.SIGCONT)

    with pytest.raises(ValueError, match="x" * 1000):
        giving.get(timeout=30)
    for each in handed:
        wait_until(lambda each=each: own_world.lines(each, "hold.pids"))  # type: ignore[misc]
        own_world.release(each)
    assert [each.get(timeout=30) for each in handed] == [1, 0]
    for each in (giving, *handed):
        row = own_world.wait_for_status(each.id, "failed" if each is giving else "completed")
        assert (row["attempt"], len(own_world.lines(each, "hold.pids"))) == (1, 1)
    own_world.wait_until_no_message()


def test_a_process_that_is_about_to_be_reaped_does_not_end_the_worker(own_world: World) -> None:
    worker = own_world.starters[own_world.engine](
        "tests.parity.untracking_app", "-P", "prefork", "-c", "1", **own_world.environment
    )
    own_world.wait_for_status(own_world.task("add").delay(1, 2).id, "completed")
    (before,) = children(worker)
    own_world.app.control.broadcast("see_exits", reply=True, timeout=10, limit=1)

    connected = worker.log().count("Connected to")
    end_sessions(own_world)
    wait_until(lambda: reconnects(worker, connected) or not worker.is_running)
    os.kill(before, signal.SIGKILL)  # it is watched again

    assert own_world.task("add").delay(2, 3).get(timeout=20) == 5
    assert worker.is_running
    assert before not in children(worker)


def test_a_process_that_ends_a_moment_after_its_descriptors_is_replaced_at_once(own_world: World) -> None:
    """A busy machine takes some time over the end of a process that was killed at its hard time limit."""
    worker = own_world.starters[own_world.engine](
        "tests.parity.exiting_app", "-P", "prefork", "-c", "1", **own_world.environment
    )
    own_world.wait_for_status(own_world.task("add").delay(1, 2).id, "completed")
    (before,) = children(worker)
    own_world.app.control.broadcast("see_closed_descriptors", reply=True, timeout=10, limit=1)

    os.kill(before, signal.SIGKILL)

    wait_until(lambda: children(worker) and before not in children(worker))
    assert own_world.task("add").delay(2, 3).get(timeout=20) == 5
