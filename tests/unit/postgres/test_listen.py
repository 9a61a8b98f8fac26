"""What keeps a listener from listening is told once, and not each time that it tries."""

from __future__ import annotations

import asyncio
import logging

import pytest

from jobbridge.dev.process import free_port
from jobbridge.postgres.connect import AsyncConnection
from jobbridge.postgres.listen import listening
from jobbridge.postgres.target import Target


async def _never(_: AsyncConnection) -> None:
    raise AssertionError("nobody listens there")


def test_the_same_trouble_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    tries = 0

    def goes_on() -> bool:
        nonlocal tries
        tries += 1
        return tries <= 5

    target = Target.of(f"postgresql://u@127.0.0.1:{free_port()}/x")
    with caplog.at_level(logging.WARNING, logger="jobbridge.postgres.listen"):
        asyncio.run(listening(target, "test", _never, goes_on=goes_on, pauses=(0.01, 0.01)))

    assert tries == 6
    assert [record.getMessage() for record in caplog.records] == ["listener.interrupted"]
