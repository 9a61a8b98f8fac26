"""A worker that is told to stop while Postgres is silent ends all the same."""

from __future__ import annotations

import os
import signal
import time

import pytest

from jobbridge.dev.postgres import PostgresServer
from tests.parity.conftest import World
from tests.proxy import Proxy
from tests.support import wait_until

#: `jobbridge_worker_stop_within`, and room for a busy machine. Seconds.
WITHIN, ROOM = 4.0, 6.0


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_sigterm_ends_a_worker_whose_database_is_silent(
    own_world: World, pool: str, postgres: PostgresServer
) -> None:
    with Proxy(postgres.port) as proxy:
        own_world.environment |= {
            "DATABASE_URL": own_world.database_url.replace(f"127.0.0.1:{postgres.port}", proxy.address),
            "PARITY_STOP_WITHIN": str(WITHIN),
        }
        worker = own_world.worker("-P", pool, "-c", "1")
        held = own_world.task("hold").delay()
        wait_until(lambda: own_world.lines(held, "hold.pids"))
        proxy.freeze()
        own_world.release(held)
        wait_until(
            lambda: own_world.lines(held, "hold.done"), message="it has an end to tell, and nobody listens"
        )
        again = own_world.task("takes").delay(0)

        os.kill(worker.pid, signal.SIGTERM)
        began = time.monotonic()
        wait_until(lambda: not worker.is_running, timeout=WITHIN + ROOM, message="it ends")
        print(f"it took {time.monotonic() - began:.1f} s")

    own_world.environment["DATABASE_URL"] = own_world.database_url
    own_world.worker("-P", pool, "-c", "1")
    # Whether its end was on the way to Postgres, or it ran again, is for the moment to decide.
    assert held.get(timeout=60) in (1, 2)
    assert again.get(timeout=30) == 1
