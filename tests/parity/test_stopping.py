"""A worker that is told to stop while Postgres is silent ends all the same."""

from __future__ import annotations

import os
import signal
import time

import psycopg
import pytest

from jobbridge.broker.routing import CHANNEL_OF_QUEUE
from jobbridge.dev.postgres import PostgresServer
from tests.parity.conftest import World
from tests.proxy import Proxy
from tests.support import wait_until

#: `jobbridge_worker_stop_within`, and room for a busy machine. Seconds.
WITHIN, ROOM = 4.0, 6.0

WAKE = f"SELECT pg_notify({CHANNEL_OF_QUEUE}, '') FROM (VALUES ('celery')) AS it (queue)"
WAITS_FOR_LOCK = """
SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
"""


@pytest.mark.parametrize("pool", ["prefork", "threads"])
@pytest.mark.parametrize("claims", [False, True], ids=["idle", "claims"])
def test_sigterm_ends_a_worker_whose_database_is_silent(
    own_world: World, pool: str, claims: bool, postgres: PostgresServer
) -> None:
    with Proxy(postgres.port) as proxy, psycopg.connect(own_world.database_url) as direct:
        own_world.environment |= {
            "DATABASE_URL": own_world.database_url.replace(f"127.0.0.1:{postgres.port}", proxy.address),
            "PARITY_STOP_WITHIN": str(WITHIN),
        }
        worker = own_world.worker("-P", pool, "-c", "1")
        held = own_world.task("hold").delay()
        wait_until(lambda: own_world.lines(held, "hold.pids"))
        if claims:  # so its loop waits for an answer, and hears of no end
            direct.execute("LOCK TABLE jobbridge_broker.messages IN ACCESS EXCLUSIVE MODE")
            own_world.looking.rows(WAKE, [])
            wait_until(lambda: own_world.looking.rows(WAITS_FOR_LOCK, []))
        proxy.freeze()
        direct.rollback()
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
