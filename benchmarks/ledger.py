"""What ran, and when: a file to which every execution adds sixteen bytes.

No system's own books are asked for the times, so all are measured alike, and a job that did not run, or ran twice,
shows. One `write` to a file that is open for appending is whole, whichever processes write beside it; the clock is the
machine's monotonic one, the same in all processes, and in Node's `process.hrtime`.
"""

from __future__ import annotations

import os
import struct
import time
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_ENTRY = struct.Struct("<qq")  # the job's number, and nanoseconds
PATH_VARIABLE = "BENCH_LEDGER"


class WrongNumber(Exception):
    """What would have been counted did not happen as it should: there is no result."""


def note(number: int) -> None:
    """Write that the job with this number runs now. What the jobs of the benchmark do."""
    os.write(_file(os.getpid()), _ENTRY.pack(number, time.monotonic_ns()))


@cache
def _file(_pid: int) -> int:
    return os.open(os.environ[PATH_VARIABLE], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """The reader's side.

    Args:
        path: The file; it need not be there yet.
    """

    path: Path

    def count(self) -> int:
        """Give how many executions there were."""
        return self.path.stat().st_size // _ENTRY.size if self.path.exists() else 0

    def clear(self) -> None:
        """Forget what is in it; processes that have it open write on from its beginning."""
        if self.path.exists():
            os.truncate(self.path, 0)

    def runs(self) -> list[tuple[int, float]]:
        """Give the number and the time (seconds, monotonic) of each, by time."""
        content = self.path.read_bytes()
        return sorted(
            ((number, when / 1e9) for number, when in _ENTRY.iter_unpack(content)), key=lambda run: run[1]
        )

    def whole(self, jobs: int) -> list[tuple[int, float]]:
        """Give the runs of the jobs 0 to `jobs`, each of which ran once.

        Raises:
            WrongNumber: One ran twice or not at all, or there are others.
        """
        runs = self.runs()
        self.refuse_repeated(runs)
        numbers = {number for number, _ in runs}
        if numbers != set(range(jobs)):
            missing, foreign = set(range(jobs)) - numbers, numbers - set(range(jobs))
            raise WrongNumber(
                f"{len(missing)} of {jobs} jobs did not run, and {len(foreign)} unknown ones did"
            )
        return runs

    @staticmethod
    def refuse_repeated(runs: list[tuple[int, float]]) -> None:
        """Raise if a job ran more than once."""
        times = Counter(number for number, _ in runs)
        if twice := [number for number, count in times.items() if count > 1]:
            raise WrongNumber(f"{len(twice)} of {len(times)} jobs ran more than once: {twice[:5]}")
