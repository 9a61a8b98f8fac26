"""A worker that is told to stop while Postgres is silent ends all the same."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import psycopg
import pytest

from jobbridge.broker.routing import CHANNEL_OF_QUEUE
from jobbridge.core.keys import Engine
from jobbridge.dev.postgres import PostgresServer
from tests.beside import Outcomes, chosen
from tests.parity.conftest import World, had_in_worlds
from tests.proxy import Proxy
from tests.support import wait_until

#: `jobbridge_worker_stop_within`, and room for a busy machine. Seconds.
WITHIN, ROOM = 4.0, 6.0

WAKE = f"SELECT pg_notify({CHANNEL_OF_QUEUE}, '') FROM (VALUES ('celery')) AS it (queue)"
WAITS_FOR_LOCK = """
SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
"""


CASES = [
    pytest.param("prefork", signal.SIGTERM, False, id="prefork"),
    pytest.param("prefork", signal.SIGTERM, True, id="prefork-claims"),
    pytest.param("threads", signal.SIGTERM, True, id="threads-claims"),
    pytest.param("solo", signal.SIGTERM, False, id="solo"),
    pytest.param("prefork", signal.SIGQUIT, False, id="prefork-cold"),
    pytest.param("threads", signal.SIGQUIT, True, id="threads-cold-claims"),
    pytest.param("solo", signal.SIGQUIT, False, id="solo-cold"),
]


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(each, id=each, marks=pytest.mark.xdist_group(f"stopping-{each}")) for each in Engine
    ],
)
def engine(request: pytest.FixtureRequest) -> Engine:
    return Engine(request.param)


@pytest.fixture(scope="module")
def stopped(
    request: pytest.FixtureRequest, engine: Engine, postgres: PostgresServer
) -> Outcomes[tuple[Any, ...]]:
    """Have a worker stopped in each way, beside each other: what they wait for is the same."""
    cases = chosen(request, "pool", "told", "claims")

    def stop(world: World, case: tuple[Any, ...]) -> None:
        pool, told, claims = case
        ends_although_the_database_is_silent(world, pool, told, postgres, claims=claims)

    return had_in_worlds(request, engine, cases, stop)


@pytest.mark.parametrize(("pool", "told", "claims"), CASES)
def test_a_signal_ends_a_worker_whose_database_is_silent(
    stopped: Outcomes[tuple[Any, ...]], pool: str, told: signal.Signals, claims: bool
) -> None:
    stopped.of((pool, told, claims))


def ends_although_the_database_is_silent(
    own_world: World, pool: str, told: signal.Signals, postgres: PostgresServer, *, claims: bool
) -> None:
    """See that the signal ends a worker of that pool in time, and that its jobs run elsewhere."""
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
        # Greenlets wait for each other's sessions to be given up, one after the other.
        wait_until(
            lambda: own_world.lines(held, "hold.done"),
            timeout=90,
            message="it has an end to tell, and nobody listens",
        )
        again = own_world.task("takes").delay(0)

        os.kill(worker.pid, told)
        began = time.monotonic()
        wait_until(lambda: not worker.is_running, timeout=WITHIN + ROOM, message="it ends")
        print(f"it took {time.monotonic() - began:.1f} s")

    own_world.environment["DATABASE_URL"] = own_world.database_url
    own_world.worker("-P", pool, "-c", "1")
    # Whether its end was on the way to Postgres, or it ran again, is for the moment to decide.
    assert held.get(timeout=60) in (1, 2)
    assert again.get(timeout=30) == 1
