"""Which jobs have run and wait only for Postgres, to write how they ended: their worker's parent has to know it.

A worker that is told to stop waits for what runs, and that is over for these. Pool processes tell it by memory that
they share with the parent, which has made it before they were forked.
"""

from __future__ import annotations

import mmap
import os
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from billiard.process import current_process

_SLOTS = 4096
_SLOT = struct.Struct("=i")


class UnwrittenEnds:
    """Of one worker: to be made before its pool forks."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._memory = mmap.mmap(-1, _SLOTS * _SLOT.size)  # anonymous, and shared
        self._lock = threading.Lock()
        self._here = 0

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Have it known that the calling process, or one more thread of the parent, waits in the block."""
        index = getattr(current_process(), "index", None)
        if os.getpid() == self._pid or index is None:
            self._count(1)
        else:
            self._put(index, os.getpid())
        try:
            yield
        finally:
            if os.getpid() == self._pid or index is None:
                self._count(-1)
            else:
                self._put(index, 0)

    def processes(self) -> set[int]:
        """Give the pool processes that wait."""
        return {pid for (pid,) in _SLOT.iter_unpack(self._memory[:]) if pid}

    def threads(self) -> int:
        """Give how many threads of this process wait."""
        return self._here

    def _count(self, more: int) -> None:
        with self._lock:
            self._here += more

    def _put(self, index: int, pid: int) -> None:
        _SLOT.pack_into(self._memory, index % _SLOTS * _SLOT.size, pid)


_noted: UnwrittenEnds | None = None


def begin() -> UnwrittenEnds:
    """Have it noted in this process, and in those that it forks from now on."""
    global _noted
    _noted = UnwrittenEnds()
    return _noted


@contextmanager
def noted() -> Iterator[None]:
    """Have it known, where there is a worker, that the block waits for Postgres and for nothing else."""
    if _noted is None:
        yield
        return
    with _noted.noted():
        yield
