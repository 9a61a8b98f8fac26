"""Where one run of one system happens: a fresh database, emptied queues, its workers, its senders."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from benchmarks.ledger import Ledger, WrongNumber
from benchmarks.servers import Servers
from benchmarks.systems import Place, System
from jobbridge.dev.process import ManagedProcess, stop_together
from tests.support import wait_until

_SENDER_WITHIN = 1800.0  # seconds; a million jobs are sent in two minutes
_WORKER_WITHIN = 600.0
_WARM_JOBS = 20


@dataclass(kw_only=True)
class Stages:
    """Makes them.

    Args:
        servers: That run.
        folder: For ledgers and logs.
    """

    servers: Servers
    folder: Path
    _number: int = field(default=0, init=False)

    @contextmanager
    def open(self, system: System, run: str, *, kept_as: str | None = None) -> Iterator[Stage]:
        """Make a place for one run; the database is dropped at its end, unless it has a name to be kept by."""
        self._number += 1
        database = kept_as or f"bench_{self._number}"
        template = self._template(system)
        url = self.servers.postgres.create_database(database, template=template)
        folder = self.folder / "logs"
        ledger = self.folder / f"ledger-{self._number}"
        place = Place(system=system, servers=self.servers, database_url=url, ledger_path=ledger)
        place.clear()
        stage = Stage(place=place, ledger=Ledger(path=ledger), log_path=folder / f"{system.name}-{run}.log")
        try:
            yield stage
        finally:
            stage.kill()
            place.clear()
            ledger.unlink(missing_ok=True)
            if kept_as is None:
                self._drop(database)

    def _template(self, system: System) -> str:
        """Give the database with the system's tables and nothing in them."""
        name = f"template_{system.kind}"
        with psycopg.connect(self.servers.postgres.url(), autocommit=True) as connection:
            if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone():
                return name
        url = self.servers.postgres.create_database(f"{name}_making")
        place = Place(system=system, servers=self.servers, database_url=url, ledger_path=self.folder / "none")
        Stage(place=place, ledger=Ledger(path=place.ledger_path), log_path=self.folder / "none.log").send(
            "prepare", 0
        )
        with psycopg.connect(self.servers.postgres.url(), autocommit=True) as connection:
            rename = sql.SQL("ALTER DATABASE {} RENAME TO {}")
            connection.execute(rename.format(sql.Identifier(f"{name}_making"), sql.Identifier(name)))
        return name

    def _drop(self, database: str) -> None:
        with psycopg.connect(self.servers.postgres.url(), autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(database)))


@dataclass(kw_only=True)
class Stage:
    """The place, and what runs there."""

    place: Place
    ledger: Ledger
    log_path: Path
    workers: list[ManagedProcess] = field(default_factory=list)

    def send(self, step: str, amount: int) -> dict[str, Any]:
        """Have the sender's process do a step of `benchmarks.apps.drive`, and give its answer.

        Raises:
            WrongNumber: It failed.
        """
        done = subprocess.run(
            self.place.sender(step, amount),
            env=self.place.env(),
            capture_output=True,
            text=True,
            timeout=_SENDER_WITHIN,
            check=False,
        )
        if done.returncode:
            raise WrongNumber(
                f"the sender of {self.place.system.name} failed at {step}:\n{done.stderr[-3000:]}"
            )
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return answer

    def start_workers(self) -> float:
        """Start them; when that was, in seconds of the monotonic clock."""
        began = time.monotonic()
        for number, argv in enumerate(self.place.workers()):
            log_path = self.log_path.with_suffix(f".{number}.log")
            process = ManagedProcess(
                name=f"worker of {self.place.system.name}", argv=argv, log_path=log_path, env=self.place.env()
            )
            self.workers.append(process.start())
        return began

    def start_warm_workers(self) -> None:
        """Start them, and have them run some jobs, which nobody counts."""
        self.start_workers()
        self.send("send", _WARM_JOBS)
        self.wait_for_runs(_WARM_JOBS)
        self.ledger.whole(_WARM_JOBS)
        self.ledger.clear()

    def wait_for_runs(self, amount: int) -> None:
        """Wait until the ledger has so many entries."""

        def enough() -> bool:
            for worker in self.workers:
                if not worker.is_running:
                    raise WrongNumber(f"{worker.name} ended with {worker.exit_code}:\n{worker.tail()}")
            return self.ledger.count() >= amount

        wait_until(
            enough,
            timeout=_WORKER_WITHIN,
            every=0.05,
            message=f"{amount} jobs of {self.place.system.name} have run",
        )

    def wait_until_unfinished(self, amount: int) -> None:
        """Wait until the system's books have so many jobs: neither lost, nor twice, nor forgotten after their end.

        Raises:
            WrongNumber: They have another number.
        """
        try:
            wait_until(
                lambda: all(count == amount for count in self.place.unfinished()), timeout=30, every=0.05
            )
        except AssertionError:
            counts = self.place.unfinished()
            raise WrongNumber(
                f"{self.place.system.name} should have {amount} jobs, and has {counts}"
            ) from None

    def stop(self) -> None:
        """Stop the workers, in their time of grace or after it: what they have taken goes back."""
        stop_together(self.workers)
        self.workers.clear()

    def kill(self) -> None:
        """End the workers at once: what is theirs is not needed any more."""
        for worker in self.workers:
            worker.kill()
        self.workers.clear()


def pss(processes: Sequence[ManagedProcess]) -> float:
    """Give the memory of these and all their descendants in MB: what is shared counts in parts (`smaps_rollup`)."""
    total = 0
    for pid in _family(processes):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


def cpu_seconds(processes: Sequence[ManagedProcess]) -> float:
    """Give the processor time that these and their descendants have taken, those that have ended included."""
    ticks = 0
    for pid in _family(processes):
        with suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(map(int, fields[11:15]))  # user, system, and both of children that were waited for
    return ticks / os.sysconf("SC_CLK_TCK")


def _family(processes: Sequence[ManagedProcess]) -> set[int]:
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended meanwhile
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    family = {process.pid for process in processes}
    while more := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= more
    return family
