"""Who waits to be notified sleeps: it does not wake to look at the clock."""

from __future__ import annotations

import asyncio
import resource
import threading
from collections.abc import Callable

import psycopg
import pytest

from jobbridge.postgres.connect import connect, connect_async
from jobbridge.postgres.listen import heard, notified, wait
from jobbridge.postgres.target import Target

#: psycopg's own wait would wake ten times in that time. Seconds.
LONG = 1.0


def asked(url: str, seconds: float) -> tuple[bool, int]:
    """Wait on an event loop; whether something came, and how often the thread gave up the processor meanwhile."""

    async def waits() -> tuple[bool, int]:
        async with await connect_async(Target.of(url), "test", keeps_session=True) as connection:
            await connection.execute("LISTEN told")
            before = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
            came = await wait(connection, seconds)
            return came, resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw - before

    return asyncio.run(waits())


def asked_on_a_thread(url: str, seconds: float) -> tuple[bool, int]:
    """Wait without a loop, likewise."""
    with connect(Target.of(url), "test", keeps_session=True) as connection:
        connection.execute("LISTEN told")
        before = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
        came = bool(notified(connection, seconds))
        return came, resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw - before


@pytest.mark.parametrize("ask", [asked, asked_on_a_thread])
def test_who_waits_sleeps(database_url: str, ask: Callable[[str, float], tuple[bool, int]]) -> None:
    came, switches = ask(database_url, LONG)

    assert not came
    assert switches <= 5


@pytest.mark.parametrize("ask", [asked, asked_on_a_thread])
def test_who_waits_is_told_at_once(database_url: str, ask: Callable[[str, float], tuple[bool, int]]) -> None:
    answers: list[tuple[bool, int]] = []
    waits = threading.Thread(target=lambda: answers.append(ask(database_url, 30.0)))
    waits.start()
    with psycopg.connect(database_url, autocommit=True) as other:
        while waits.is_alive():
            other.execute("NOTIFY told")
            waits.join(0.05)

    assert answers[0][0]


def test_what_one_commit_tells_is_heard_wholly(database_url: str) -> None:
    """Notifications that come together were lost but for the first, and with them the instants that rules give jobs."""

    async def hears() -> list[str]:
        async with await connect_async(Target.of(database_url), "test", keeps_session=True) as connection:
            await connection.execute("LISTEN told")
            with psycopg.connect(database_url) as other:
                other.execute("SELECT pg_notify('told', number::text) FROM generate_series(1, 100) AS number")
            found: list[str] = []
            while payloads := await heard(connection, LONG):
                found += payloads
            return found

    assert asyncio.run(hears()) == [str(number) for number in range(1, 101)]
