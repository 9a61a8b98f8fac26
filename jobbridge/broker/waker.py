"""Make an event loop turn again at once."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any


class Waker:
    """A pipe among the loop's readers.

    kombu's loop fixes how long it will sleep before it calls `on_tick` (kombu 5.7, `Hub.create_loop`). A timer that
    is set there, or work that is left for the next turn, would wait for up to a second.

    Args:
        loop: kombu's `Hub`.
    """

    def __init__(self, loop: Any) -> None:
        self._loop = loop
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)
        loop.add_reader(self._reader, self._drain)

    def wake(self) -> None:
        """Do not let the loop sleep before its next turn."""
        with suppress(BlockingIOError):  # full: it will wake
            os.write(self._writer, b"\0")

    def _drain(self) -> None:
        with suppress(BlockingIOError):
            os.read(self._reader, 4096)

    def close(self) -> None:
        with suppress(OSError, ValueError):
            self._loop.remove_reader(self._reader)
        os.close(self._reader)
        os.close(self._writer)
