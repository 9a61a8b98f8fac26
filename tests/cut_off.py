"""A connection to Postgres that is cut off in the moment between the network's error and its being closed."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg

from tests.support import wait_until

SLOW = "SELECT pg_sleep(60)"
_RUNNING = f"SELECT pid FROM pg_stat_activity WHERE state = 'active' AND query = '{SLOW}'"


@contextmanager
def cut_off_amid(database_url: str, fileno: Callable[[], int]) -> Iterator[None]:
    """Put an error, and nothing else, in the place of the socket once the statement SLOW runs on it.

    Linux marks a socket that was reset in two steps: who polls it in between is told of an error, and of nothing to
    read (net/ipv4/tcp_input.c, `tcp_reset`). A pipe that nobody reads looks the same, for as long as it is there.
    """
    with psycopg.connect(database_url, autocommit=True) as outside:

        def cut() -> None:
            wait_until(lambda: outside.execute(_RUNNING).fetchone(), message="the statement runs")
            reading, writing = os.pipe()
            os.close(reading)
            os.dup2(writing, fileno())
            os.close(writing)

        thread = threading.Thread(target=cut)
        thread.start()
        yield
        thread.join()
        outside.execute(_RUNNING.replace("SELECT pid", "SELECT pg_terminate_backend(pid)"))
