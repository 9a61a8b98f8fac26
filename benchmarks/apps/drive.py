"""The sender's process: `python -m benchmarks.apps.drive KIND STEP AMOUNT`; the answer is the last line, JSON.

Every step warms up with jobs of its own first, which the answer does not count; jobs are numbered from 0, warm-up
included, so the ledger can be compared with what was sent.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.apps.senders import SENDERS, LimitSender, Sender
from benchmarks.ledger import PATH_VARIABLE, Ledger, WrongNumber, note

_WARM_ANSWERS = 10
_LONGEST = 15.0  # seconds in which a run of answers ends: some systems look for results twice a second
_FEWEST = 8  # answers
_IDLE_PAUSE = 0.15  # seconds, in which what follows a job's last line has ended, too
_PAUSE = (0.020, 0.045)  # seconds: a job of before has ended, and no poll is met always at the same moment


def prepare(sender: Sender, _amount: int) -> None:
    """Make the tables."""
    sender.prepare()


def fill(sender: Sender, amount: int) -> None:
    """Send so many, by the fastest way."""
    sender.send_many(range(amount))


def fill_from_many(sender: Sender, amount: int) -> None:
    """Send so many from 50 callers: what `fill` does may be left to a worker."""
    sender.send_from_many(range(amount))


def send(sender: Sender, amount: int) -> None:
    """Send so many, one by one, untimed."""
    for number in range(amount):
        sender.send(number)


def publish(sender: Sender, amount: int) -> dict[str, Any]:
    """Send so many one by one, after a tenth as many to warm up."""

    def one_by_one(numbers: Iterable[int]) -> None:
        for number in numbers:
            sender.send(number)

    return _timed(amount, one_by_one)


def publish_bulk(sender: Sender, amount: int) -> dict[str, Any]:
    """Send so many in bulk, after a tenth as many to warm up."""
    return _timed(amount, sender.send_many)


def publish_from_many(sender: Sender, amount: int) -> dict[str, Any]:
    """Send so many from 50 callers, after a tenth as many to warm up."""
    return _timed(amount, sender.send_from_many)


def latency_idle(sender: Sender, amount: int) -> dict[str, Any]:
    """Send so many, each when the one before has run for a while; when each was given to the system."""
    ledger = Ledger(path=Path(os.environ[PATH_VARIABLE]))
    sent = []
    for number in range(amount):
        time.sleep(_IDLE_PAUSE)
        sent.append(time.monotonic_ns() / 1e9)
        sender.send(number)
        while ledger.count() <= number:
            time.sleep(0.005)
    return {"sent": sent}


def latency(sender: Sender, amount: int) -> dict[str, Any]:
    """Send so many with pauses; when each was given to the system, by its number."""
    pauses = random.Random(13)  # noqa: S311  # the same pauses for all
    sent = []
    for number in range(amount):
        time.sleep(pauses.uniform(*_PAUSE))
        sent.append(time.monotonic_ns() / 1e9)
        sender.send(number)
    return {"sent": sent}


def answers(sender: Sender, amount: int) -> dict[str, Any]:
    """Wait for results of jobs that take no time, and of ones that take 30 ms; seconds of each."""
    found: dict[str, list[float]] = {}
    for name, seconds in (("get", 0.0), ("get30", 0.03)):
        for number in range(_WARM_ANSWERS):
            _right(sender.ask(number, seconds), number)
        found[name] = []
        for number in _at_most(amount):
            began = time.monotonic()
            _right(sender.ask(number, seconds), number)
            found[name].append(time.monotonic() - began)
    return found


def chords(sender: Sender, size: int) -> dict[str, Any]:
    """Wait for a chord of this size, after a small one and one of a hundred; and how long each part took."""
    seconds = {}
    for parts in (10, 100, size):
        began = time.monotonic()
        _right(sender.chord(parts), sum(range(parts)))
        seconds[str(parts)] = time.monotonic() - began
    return {"seconds": seconds}


def groups(sender: Sender, size: int) -> dict[str, Any]:
    """Send a group of this size, after a small one."""
    sender.group(range(10))
    began = time.monotonic()
    sender.group(range(10, 10 + size))
    return {"seconds": time.monotonic() - began, "sent": 10 + size}


def take(sender: LimitSender, amount: int, *, at_once: int = 1) -> None:
    """Claim and delete so many, and write each to the ledger."""
    taken = 0
    while taken < amount:
        numbers = sender.take(at_once)
        if not numbers:
            raise WrongNumber(f"only {taken} of {amount} messages were there")
        for number in numbers:
            note(number)
        taken += len(numbers)


def take_100(sender: LimitSender, amount: int) -> None:
    """Claim and delete so many, a hundred at a time."""
    take(sender, amount, at_once=100)


def _timed(amount: int, work: Callable[[range], object]) -> dict[str, Any]:
    warm = amount // 10
    work(range(warm))
    began = time.monotonic()
    work(range(warm, warm + amount))
    return {"seconds": time.monotonic() - began, "sent": warm + amount}


def _at_most(amount: int) -> Iterator[int]:
    began = time.monotonic()
    for number in range(amount):
        if number >= _FEWEST and time.monotonic() - began > _LONGEST:
            return
        yield number


def _right(answer: int, expected: int) -> None:
    if answer != expected:
        raise WrongNumber(f"the result is {answer!r}, and not {expected}")


_STEPS: dict[str, Callable[[Any, int], dict[str, Any] | None]] = {
    step.__name__: step
    for step in (
        *(prepare, fill, fill_from_many, send, publish, publish_bulk, publish_from_many),
        *(latency, latency_idle, answers, chords, groups, take, take_100),
    )
}


def main() -> None:
    """Do the step that the arguments name."""
    kind, step, amount = sys.argv[1:]
    print(json.dumps(_STEPS[step](SENDERS[kind](), int(amount)) or {}), flush=True)
    if kind == "temporal":
        os._exit(0)  # the SDK's threads may abort a process that ends by itself (temporalio/sdk-python#300)


if __name__ == "__main__":
    main()
