"""Sending again what was given up: at a rate, each once, and again from where it was if its process dies.

Each is sent in a transaction that takes it from those which are dead, and only if it died before the redrive began. So
what fails once more is not sent a second time, neither by this process nor by one that goes on after it. When a redrive
began is kept (`job_keys`) until it has ended: the same command goes on with it.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from hashlib import sha256
from typing import TYPE_CHECKING

from kombu.exceptions import OperationalError

from jobbridge.app.dead.letters import MESSAGE, PAGE, DeadFilter, Letter, letters
from jobbridge.broker import delete_dead_of, send_dead_again
from jobbridge.errors import JobBridgeError, RanAgain, UnsupportedOption
from jobbridge.store.workers.dead import clock

if TYPE_CHECKING:
    from jobbridge.app.application import Celery

#: So long a redrive that was broken off is known.
_KNOWN_FOR = timedelta(days=7)
#: Between two looks whether it is to stop, in seconds.
_LOOK = 0.2
_SECONDS: Mapping[str, float] = {"s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(slots=True)
class Redriven:
    """What became of it.

    Attributes:
        began_at: Only what died before was sent.
        goes_on: One that was broken off was gone on with.
        is_cut: It was stopped before its end: the same call goes on.
        sent: By this process.
        passed: What ran again, or was taken away, meanwhile.
        refused: Why, and how many; these are as they were.
    """

    began_at: datetime
    goes_on: bool
    is_cut: bool = False
    sent: int = 0
    passed: int = 0
    refused: Counter[str] = field(default_factory=Counter)


def rate_of(text: str) -> float:
    """Read a rate: `50/s`, `100/m`, `10/h`, or a number a second.

    Returns:
        How many a second.

    Raises:
        UnsupportedOption: It is none, or 0.
    """
    number, _, unit = text.strip().partition("/")
    try:
        rate = float(number) / _SECONDS[unit.strip() or "s"]
    except (KeyError, ValueError):
        rate = 0.0
    if not 0 < rate < float("inf"):
        raise UnsupportedOption(f"The rate {text!r} cannot be honoured.", hint="Write 50/s, 100/m or 10/h.")
    return rate


def redrive(
    app: Celery,
    where: DeadFilter,
    *,
    rate: float | None = None,
    anew: bool = False,
    told: Callable[[Letter, Redriven], None] | None = None,
    is_stopped: Callable[[], bool] = lambda: False,
) -> Redriven:
    """Send again what was given up, the first to die first.

    Args:
        app: Whose tasks they are.
        where: Which.
        rate: At most so many a second; None: as fast as it goes.
        anew: Forget one with the same filter that was broken off: also what it sent, and failed since, is sent.
        told: Called after each.
        is_stopped: Asked before each.

    Raises:
        DatabaseUnavailable: Postgres cannot be reached: the same call goes on where it was.
    """
    name = f"dead-redrive/{_digest(where)}"
    known = None if anew else app.keys.get(name)
    began_at = clock(app.database) if known is None else datetime.fromisoformat(known.decode())
    app.keys.set(name, began_at.isoformat().encode(), ttl=_KNOWN_FOR)
    done = Redriven(began_at=began_at, goes_on=known is not None)
    before = began_at if where.died_before is None else min(began_at, where.died_before)
    begun, sent = time.monotonic(), list[str]()
    for number, letter in enumerate(letters(app, replace(where, died_before=before))):
        if not _is_time(begun if rate is None else begun + number / rate, is_stopped):
            done.is_cut = True
            _forget(app, sent, before)
            return done
        if _send_again(app, letter, before, done) and letter.key is not None and letter.task_id is not None:
            sent.append(letter.task_id)
        if len(sent) >= PAGE:
            _forget(app, sent, before)
        if told is not None:
            told(letter, done)
    _forget(app, sent, before)
    app.keys.delete(name)
    return done


def _forget(app: Celery, task_ids: list[str], before: datetime) -> None:
    """Delete the messages of jobs that go on by another one; left there, they are hidden by the rows of these jobs."""
    if task_ids and app.shares_database_with_broker:
        with app.database.transaction() as connection:
            delete_dead_of(connection, task_ids, before=before)
    task_ids.clear()


def send_again(app: Celery, letter: Letter, *, before: datetime) -> bool:
    """Send one again; False: it is none any more that died before that instant.

    Raises:
        JobBridgeError, OperationalError: It cannot be; it is as it was.
    """
    if letter.key is None:
        with app.database.transaction() as connection:
            return send_dead_again(connection, int(letter.id.removeprefix(MESSAGE)), before=before)
    try:
        app.retry_job(letter.key.job_id, letter.key.tenant, failed_before=before)
    except RanAgain:
        return False
    return True


def _send_again(app: Celery, letter: Letter, before: datetime, done: Redriven) -> bool:
    try:
        is_sent = send_again(app, letter, before=before)
    except (JobBridgeError, OperationalError) as error:
        done.refused[f"{letter.type}: {type(error).__name__}: {str(error).replace(letter.id, '…')}"] += 1
        return False
    done.sent += is_sent
    done.passed += not is_sent
    return is_sent


def _digest(where: DeadFilter) -> str:
    document = asdict(where) | {"ids": sorted(where.ids or ())}
    return sha256(json.dumps(document, default=str, sort_keys=True).encode()).hexdigest()[:16]


def _is_time(at: float, is_stopped: Callable[[], bool]) -> bool:
    """Wait until then; False: it was stopped before."""
    while not is_stopped():
        if (rest := at - time.monotonic()) <= 0:
            return True
        time.sleep(min(rest, _LOOK))
    return False
