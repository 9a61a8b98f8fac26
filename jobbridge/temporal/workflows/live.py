"""How far a running job is, for the query: its row says so.

Handlers report into their row. Were each report a signal, ten thousand of them would make the workflow deaf, and its
history long. So the query reads the row, in the worker that answers it: reading changes nothing, and has no part in
what is replayed. Where there is no reader (a replay outside of a worker) or no answer in time, the workflow says what
it knows by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class LiveProgress:
    """What the row says.

    Attributes:
        progress: 0 to 100; None: nothing was reported.
    """

    progress: float | None
    message: str | None


#: Asked with tenant (None: not known) and task id; None: no such job, or no answer in time.
Reader = Callable[[str | None, str], LiveProgress | None]

_readers: list[Reader] = []


def read_by(reader: Reader) -> None:
    """Have queries that this process answers read rows so; the last who says so counts."""
    _readers[:] = [reader]


def live_progress(tenant: str | None, task_id: str) -> LiveProgress | None:
    """Give what the row says now; None: that is not known here."""
    return _readers[0](tenant, task_id) if _readers else None
