"""Of all maintainers one runs each service, and the others take over."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from jobbridge.errors import EngineUnavailable
from jobbridge.maintenance.maintainer import Maintainer
from jobbridge.store.database import Database
from jobbridge.store.workers.services import ServiceRow, services
from tests.support import wait_until


@dataclass
class Counting:
    """A service that counts its runs."""

    name: str = "counting"
    interval: timedelta = timedelta()
    trouble: Exception | None = None
    runs: int = 0
    has_run: threading.Event = field(default_factory=threading.Event)

    def run(self, stopped: threading.Event) -> Mapping[str, int]:
        self.runs += 1
        self.has_run.set()
        if self.trouble is not None:
            raise self.trouble
        return {"things": 2}


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = Database(database_url)
    yield database
    database.close()


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def _maintainer(opened: ExitStack, database: Database, service: Counting, holder: str) -> Maintainer:
    maintainer = Maintainer(database, [service], holder=holder)
    opened.callback(maintainer.stop)
    return maintainer


def _row(database: Database) -> ServiceRow:
    (row,) = services(database)
    return row


def test_one_leads_and_its_last_run_is_written_down(database: Database, opened: ExitStack) -> None:
    first = _maintainer(opened, database, leading := Counting(), "first")
    second = _maintainer(opened, database, ready := Counting(), "second")

    for _ in range(2):
        first.turn()
        second.turn()

    assert (leading.runs, ready.runs) == (2, 0)
    assert (first.leads, second.leads) == ({"counting"}, set())
    row = _row(database)
    assert row.holder == "first"
    assert row.counters == {"runs": 2, "things": 4}
    assert row.last_started is not None
    assert row.last_finished is not None
    assert row.last_started <= row.last_finished
    assert (row.last_error, row.is_hanging) == (None, False)


def test_another_takes_over_when_the_leader_stops(database: Database, opened: ExitStack) -> None:
    first = _maintainer(opened, database, Counting(), "first")
    second = _maintainer(opened, database, ready := Counting(), "second")
    first.turn()

    first.stop()
    second.turn()

    assert ready.runs == 1
    assert _row(database).counters == {"runs": 2, "things": 4}


def test_another_takes_over_when_the_leader_loses_its_session(database: Database, opened: ExitStack) -> None:
    first = _maintainer(opened, database, leading := Counting(interval=timedelta(hours=1)), "first")
    second = _maintainer(opened, database, ready := Counting(), "second")
    first.turn()
    assert leading.runs == 1

    with database.connection() as own:
        own.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE application_name LIKE '% services' AND datname = current_database()"
        )
    second.start()

    assert ready.has_run.wait(10)
    assert _row(database).holder == "second"


def test_who_has_lost_the_lead_does_not_run(database: Database, opened: ExitStack) -> None:
    first = _maintainer(opened, database, leading := Counting(), "first")
    first.start()
    assert leading.has_run.wait(10)

    with database.connection() as own:
        own.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE application_name LIKE '% services' AND datname = current_database()"
        )
    runs = leading.runs

    # It finds out at its next turn, gets another session, and leads again.
    wait_until(lambda: leading.runs > runs, timeout=15)


@pytest.mark.parametrize("trouble", [EngineUnavailable("Temporal is away."), RuntimeError("a bug")])
def test_a_failure_is_written_down_and_the_next_run_comes(
    database: Database, opened: ExitStack, trouble: Exception
) -> None:
    maintainer = _maintainer(opened, database, service := Counting(trouble=trouble), "first")

    maintainer.turn()

    row = _row(database)
    assert str(trouble) in str(row.last_error)
    assert row.failed_at is not None
    service.trouble = None
    maintainer.turn()
    assert _row(database).last_error is None


def test_a_maintainer_waits_for_a_postgres_that_is_away(opened: ExitStack) -> None:
    away = Database("postgresql://nobody@127.0.0.1:1/none")
    maintainer = _maintainer(opened, away, service := Counting(), "first")

    maintainer.start()
    assert not service.has_run.wait(1.5)
    maintainer.stop()

    assert service.runs == 0
