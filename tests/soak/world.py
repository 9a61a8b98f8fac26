"""The servers and workers of the soak, and what is done to them."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import psycopg

from jobbridge.dev.postgres import PostgresServer, run_postgres
from jobbridge.dev.process import ManagedProcess, free_port
from jobbridge.store.schema.migrate import migrate
from tests.forked import start_python
from tests.proxy import Proxy
from tests.standby import run_standby
from tests.support import children_of, clean_environment, wait_until

POOLS = (("prefork", "2"), ("prefork", "3"), ("threads", "4"), ("solo", "1"))


class World:
    """Postgres behind a proxy, a standby, and four workers that are started again whenever they end."""

    def __init__(self, folder: Path) -> None:
        self._stack, self._folder = ExitStack(), folder
        self._port = free_port()
        self._running = self._stack.enter_context(ExitStack())
        self.server: PostgresServer = self._running.enter_context(
            run_postgres(folder / "primary", port=self._port, settings={"max_connections": "200"})
        )
        self._direct = self.server.create_database("soak")
        migrate(self._direct)
        self._proxy = self._stack.enter_context(Proxy(self.server.port))
        self.url = self._behind(self._proxy.address.rpartition(":")[2])
        self.ledger = folder / "ledger"
        self.workers: list[ManagedProcess] = []
        self._started = 0
        self.done: Counter[str] = Counter()

    def close(self) -> None:
        for worker in self.workers:
            _kill(*children_of(worker.pid))
            worker.kill()
        self._stack.close()

    @property
    def direct(self) -> str:
        return self._direct

    def _behind(self, port: str) -> str:
        return self._direct.replace(f":{self.server.port}/", f":{port}/")

    def look(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        # What is done to the accounts of others is not done to who looks.
        with psycopg.connect(self._direct, autocommit=True, options="-c statement_timeout=0") as connection:
            cursor = connection.execute(statement.encode(), values or None)
            return [] if cursor.description is None else cursor.fetchall()

    # -- workers

    def start_worker(self, pool: str, concurrency: str) -> ManagedProcess:
        self._started += 1
        name = f"{pool}-{self._started}"
        return start_python(
            [
                "-m",
                "celery",
                "-A",
                "tests.soak.app",
                "worker",
                "-P",
                pool,
                "-c",
                concurrency,
                "-n",
                f"{name}@soak",
            ],
            name=name,
            log_path=self._folder / f"{name}.log",
            env=clean_environment({"DATABASE_URL": self.url, "SOAK_LEDGER": str(self.ledger)}),
        )

    def start_workers(self) -> None:
        self.workers = [self.start_worker(*each) for each in POOLS]

    def mend_workers(self) -> None:
        for place, worker in enumerate(self.workers):
            if not worker.is_running:
                self.done["worker ended"] += 1
                worker.kill()  # closes what is left of it
                self.workers[place] = self.start_worker(*POOLS[place])

    # -- what breaks

    def kill_worker(self, chance: random.Random) -> None:
        _kill(chance.choice(self.workers).pid)

    def kill_child(self, chance: random.Random) -> None:
        children = [child for worker in self.workers[:2] for child in children_of(worker.pid)]
        if children:
            _kill(chance.choice(children))

    def end_sessions(self, chance: random.Random) -> None:
        self.look(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid() AND random() < 0.3"
        )

    def cut_connections(self, chance: random.Random) -> None:
        self._proxy.cut()
        time.sleep(chance.uniform(0.1, 3))  # so long it is cut
        self._proxy.mend()

    def refuse_statements(self, chance: random.Random) -> None:
        self.look("ALTER DATABASE soak SET statement_timeout = '15ms'")
        self.end_sessions(chance)
        time.sleep(chance.uniform(0.5, 2))  # so long new sessions are refused what takes longer
        self.look("ALTER DATABASE soak RESET statement_timeout")
        self.look(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )

    def cancel_statements(self, chance: random.Random) -> None:
        for _ in range(20):
            self.look(
                "SELECT pg_cancel_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid() AND state = 'active'"
            )

    def restart(self, chance: random.Random) -> None:
        self._running.close()
        self.server = self._running.enter_context(
            run_postgres(self._folder / "primary", port=self._port, settings={"max_connections": "200"})
        )

    def promote(self, chance: random.Random) -> None:
        """Have a standby take over, which has all that was promised."""
        standby = self._stack.enter_context(run_standby(self._folder / "standby", self.server))
        there = self._direct.replace(f":{self.server.port}/", f":{standby.port}/")
        self._proxy.cut()
        [(position,)] = self.look("SELECT pg_current_wal_flush_lsn()::text")
        with psycopg.connect(there, autocommit=True) as connection:

            def has_come() -> bool:
                row = connection.execute(
                    "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", [position]
                ).fetchone()
                return row == (True,)

            wait_until(has_come)
            self._running.close()
            connection.execute("SELECT pg_promote()")
        self.server, self._direct = standby, there
        self._proxy.point_to(standby.port)
        self._proxy.mend()


#: What happens again and again, and how often in relation.
OFTEN: tuple[tuple[Callable[[World, random.Random], None], int], ...] = (
    (World.kill_worker, 4),
    (World.kill_child, 6),
    (World.end_sessions, 2),
    (World.cut_connections, 2),
    (World.refuse_statements, 1),
    (World.cancel_statements, 2),
)


class Chaos:
    """Breaks things for `seconds`: two restarts and a promotion at fixed times, the rest at random."""

    def __init__(self, world: World, seconds: float, chance: random.Random) -> None:
        self._world, self._seconds, self._chance = world, seconds, chance
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.error: BaseException | None = None

    def _run(self) -> None:
        try:
            self._break()
        except BaseException as error:
            self.error = error

    def _break(self) -> None:
        began = time.monotonic()
        rare = [(0.25, World.restart), (0.5, World.promote), (0.75, World.kill_worker)]
        if self._seconds >= 120:
            rare.insert(1, (0.4, World.restart))
        actions, weights = zip(*OFTEN, strict=True)
        while (now := time.monotonic() - began) < self._seconds:
            if rare and now >= rare[0][0] * self._seconds:
                action = rare.pop(0)[1]
            else:
                action = self._chance.choices(actions, weights)[0]
            action(self._world, self._chance)
            self._world.done[action.__name__] += 1
            time.sleep(self._chance.uniform(1, 3))  # between two breaks
            self._world.mend_workers()


def _kill(*pids: int) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
