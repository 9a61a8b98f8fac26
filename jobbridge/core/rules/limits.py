"""The rules across the fleet, as they are declared: how many at once, how many in a time. No I/O.

A rule says for whom it counts (`per`): all jobs of the task, those of a tenant, those of a key, or all of a queue. Jobs
that it counts together have one name for it, which is what the database locks and counts by (`FleetRule.name_for`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any

from jobbridge.core.rules.durations import duration_of
from jobbridge.errors import UnsupportedOption

#: Characters of a key; Postgres can index no more than some 2,700 bytes.
KEY_LIMIT = 255
#: Most that a rule may allow.
MOST = 1_000_000
_PERIODS = {
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
}
_RATE = re.compile(r"(\d+)\s*/\s*(\d*)\s*([smhd])")


class RuleKind(StrEnum):
    """What a rule counts: how many run at once, or how many begin in a time."""

    CONCURRENCY = "concurrency"
    RATE_LIMIT = "rate_limit"


class Per(StrEnum):
    """Which jobs a rule counts together; those before pass first, for they let others of the same by."""

    KEY = "key"
    TENANT = "tenant"
    TASK = "task"
    QUEUE = "queue"


@dataclass(frozen=True, kw_only=True, slots=True)
class FleetRule:
    """One rule, as it is declared.

    Attributes:
        allowed: So many at once, or in `period`; 0: none begins.
        period: Of a rate.
        key: With `per="key"`: text, in which `{name}` is the argument of that name, or a function of the arguments.
        is_fair: Tenants that wait take turns, by their weights, however many jobs each has.
        ageing: A job that waits for so long goes as if its priority were one higher, and so on; None: it does not.
    """

    kind: RuleKind
    allowed: int
    per: Per = Per.TASK
    period: timedelta | None = None
    key: str | Callable[..., object] | None = None
    is_fair: bool = False
    ageing: timedelta | None = None

    def name_for(self, *, task: str, queue: str, tenant: str, key: str | None = None) -> str:
        """Name what it counts a job with: the same for all jobs that it counts together."""
        match self.per:
            case Per.KEY:
                counted = f"tenant {tenant} key {key}"
            case Per.TENANT:
                counted = f"task {task} tenant {tenant}"
            case Per.TASK:
                counted = f"task {task}"
            case Per.QUEUE:
                counted = f"queue {queue}"
        return f"{self.kind} {counted}"

    @property
    def rank(self) -> int:
        """Its place among a job's rules: all jobs pass them in this order, so no two wait for each other."""
        return list(Per).index(self.per) + (len(Per) if self.kind is RuleKind.RATE_LIMIT else 0)


def concurrency_rules(value: object) -> tuple[FleetRule, ...]:
    """Read what `concurrency` may be: a number, a mapping, a rule, or several of these; False or None: nothing.

    Raises:
        UnsupportedOption: It is none of these, or cannot be honoured.
    """
    return _rules(RuleKind.CONCURRENCY, value)


def rate_rules(value: object) -> tuple[FleetRule, ...]:
    """Read what `rate_limit` may be: `"100/s"`, `"10/5m"`, a number for each second, a mapping, or several of these.

    Raises:
        UnsupportedOption: It is none of these, or cannot be honoured.
    """
    return _rules(RuleKind.RATE_LIMIT, value)


def rate_of(value: object) -> tuple[int, timedelta]:
    """Read a rate: how many, in which time.

    Raises:
        UnsupportedOption: It is none.
    """
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= MOST:
        if value == int(value):
            return int(value), _PERIODS["s"]
        return 1, duration_of("rate_limit's time", 1 / value) or _PERIODS["s"]
    found = _RATE.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None or (found[2] and int(found[2]) == 0):
        raise UnsupportedOption(
            f"rate_limit is {str(value)[:60]!r}.",
            hint="Pass how many in which time: '100/s', '10/m', '500/h', '1/15m'.",
        )
    seconds = _PERIODS[found[3]].total_seconds() * float(found[2] or 1)
    period = duration_of("rate_limit's time", seconds)
    assert period is not None  # there are seconds
    return _number("rate_limit", int(found[1])), period


def _rules(kind: RuleKind, value: object) -> tuple[FleetRule, ...]:
    if value is None or value is False:
        return ()
    if isinstance(value, list | tuple):
        return tuple(rule for each in value for rule in _rules(kind, each))
    if isinstance(value, FleetRule):
        if value.kind is not kind:
            raise UnsupportedOption(f"{kind} is a {value.kind}.", hint=f"Pass it as {value.kind}=….")
        return (value,)
    given: Mapping[str, Any] = value if isinstance(value, Mapping) else {"limit": value}
    if unknown := given.keys() - {"limit", "per", "key", "fair", "ageing"}:
        raise UnsupportedOption(
            f"{kind} has no {', '.join(sorted(map(repr, unknown)))}.",
            hint="It takes limit, per, key, fair and ageing.",
        )
    allowed, period = _limit(kind, given.get("limit"))
    key = given.get("key")
    return (
        FleetRule(
            kind=kind,
            allowed=allowed,
            period=period,
            per=_per(kind, given.get("per"), key),
            key=key,
            is_fair=bool(given.get("fair", False)),
            ageing=duration_of(f"{kind}'s ageing", given.get("ageing")),
        ),
    )


def _limit(kind: RuleKind, limit: object) -> tuple[int, timedelta | None]:
    if kind is RuleKind.RATE_LIMIT:
        return rate_of(limit)
    return _number(kind, limit), None


def _number(option: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MOST:
        raise UnsupportedOption(
            f"{option} is {str(value)[:60]!r}.", hint=f"Pass a whole number from 0 to {MOST:,}."
        )
    return value


def _per(kind: RuleKind, per: object, key: object) -> Per:
    if key is not None and not isinstance(key, str) and not callable(key):
        raise UnsupportedOption(
            f"{kind}'s key is {str(key)[:60]!r}.", hint="Pass text, or a function of the task's arguments."
        )
    try:
        chosen = Per(str(per)) if per is not None else (Per.TASK if key is None else Per.KEY)
    except ValueError:
        raise UnsupportedOption(
            f"{kind} is per {str(per)!r}, which there is not.", hint=f"Use one of: {', '.join(Per)}."
        ) from None
    if (chosen is Per.KEY) != (key is not None):
        raise UnsupportedOption(
            f"{kind} is per {chosen}, and {'no' if key is None else 'a'} key is given.",
            hint="Pass key=… with per='key', and only then.",
        )
    return chosen
