"""A process that dies at a chosen point, without a process: for tests of what a second attempt does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg

from jobbridge.handlers.sql import Transaction


class Died(BaseException):
    """Raised where the process is said to die; a BaseException, so that no handler takes it for a failure."""


@dataclass
class Mortal:
    """Transactions and other steps of somebody who dies after the `lives`-th of them.

    Even ends are before a commit, odd ones after it: what was in the transaction is lost, or is not.
    """

    transaction_of: Transaction
    lives: int

    def step(self) -> None:
        """Spend a life; dies if it was the last."""
        self.lives -= 1
        if self.lives < 0:
            raise Died

    @contextmanager
    def transaction(self) -> Iterator[psycopg.Connection[Any]]:
        with self.transaction_of() as connection:
            yield connection
            self.step()
        self.step()


def die_at_each_step(run: Callable[[int], None], *, most: int = 200) -> int:
    """Call `run` with 0, 1, 2 … lives, each time from a fresh start, until it survives; give how many lives it needed.

    `run` must let `Died` pass.
    """
    for lives in range(most):
        try:
            run(lives)
        except Died:
            continue
        return lives
    raise AssertionError(f"still dying after {most} steps")
