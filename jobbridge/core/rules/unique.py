"""`unique`, `throttle` and `debounce`, as they are declared: which jobs are the same, and for how long. No I/O.

All three are decided when a job is sent, by a singleton key (`core.enqueue`) that is made of the job. Where `unique`
leaves a job out while another is there, `throttle` does so for a time after that was sent, and `debounce` puts the new
one in the place of the one that waits, and has it wait anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from jobbridge.core.enqueue import SingletonPolicy
from jobbridge.core.rules.durations import duration_of
from jobbridge.core.rules.limits import rate_of
from jobbridge.errors import UnsupportedOption

_ARGS, _TASK = "args", "task"
_ALLOWED = {
    "unique": frozenset({"by", "key", "period", "while", "policy"}),
    "throttle": frozenset({"by", "key", "period"}),
    "debounce": frozenset({"by", "key", "wait", "max_wait"}),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class UniqueRule:
    """Which jobs of a task are the same, and what becomes of a second one.

    Attributes:
        option: `unique`, `throttle` or `debounce`.
        by: `args`: jobs with the same arguments; `task`: all of the task; or some arguments' names. Unless:
        key: Text, in which `{name}` is the argument of that name, or a function of the arguments.
        policy: What becomes of the second one.
        while_waiting: Only until the first one begins.
        period: For so long from when the first one was sent, even if it has ended.
        wait: It begins so long after it was sent.
        max_wait: But not later than so long after the first one was that has not run.
    """

    option: str
    by: str | tuple[str, ...] = _ARGS
    key: str | Callable[..., object] | None = None
    policy: SingletonPolicy = SingletonPolicy.SKIP
    while_waiting: bool = False
    period: timedelta | None = None
    wait: timedelta | None = None
    max_wait: timedelta | None = None


def unique_rule(option: str, value: object) -> UniqueRule | None:
    """Read what `unique`, `throttle` or `debounce` may be; False or None: nothing.

    Raises:
        UnsupportedOption: It is nothing of the kind.
    """
    if value is None or value is False or isinstance(value, UniqueRule):
        return value or None
    given = dict(value) if isinstance(value, Mapping) else _short(option, value)
    if unknown := given.keys() - _ALLOWED[option]:
        raise UnsupportedOption(
            f"{option} has no {', '.join(sorted(map(repr, unknown)))}.",
            hint=f"It takes {', '.join(sorted(_ALLOWED[option]))}.",
        )
    period, wait = (
        duration_of(f"{option}'s period", given.get("period")),
        duration_of(f"{option}'s wait", given.get("wait")),
    )
    if (option == "throttle" and period is None) or (option == "debounce" and wait is None):
        raise UnsupportedOption(
            f"{option} says no time.", hint=f"Pass {option}=60, in seconds, or a timedelta."
        )
    max_wait = duration_of(f"{option}'s max_wait", given.get("max_wait"))
    if max_wait is not None and wait is not None and max_wait < wait:
        raise UnsupportedOption(
            f"{option} waits for {wait}, and for {max_wait} at most.", hint="Make max_wait longer than wait."
        )
    key = given.get("key")
    if key is not None and ("by" in given or not (isinstance(key, str) or callable(key))):
        raise UnsupportedOption(
            f"{option} has the key {str(key)[:60]!r}.",
            hint="Pass text, or a function of the task's arguments, and no `by` with it.",
        )
    return UniqueRule(
        option=option,
        by=_by(option, given.get("by", _ARGS if option == "unique" else _TASK)),
        key=key,
        policy=SingletonPolicy.REPLACE if option == "debounce" else _policy(given.get("policy")),
        while_waiting=option == "debounce" or _is_while_waiting(given.get("while")),
        period=period,
        wait=wait,
        max_wait=max_wait,
    )


def _short(option: str, value: object) -> dict[str, Any]:
    if option == "unique":
        return {} if value is True else {"by": value}
    if option == "throttle" and isinstance(value, str):
        allowed, period = rate_of(value)
        return {"period": period / allowed if allowed else None}
    return {"period" if option == "throttle" else "wait": value}


def _by(option: str, value: object) -> str | tuple[str, ...]:
    if value in (_ARGS, _TASK):
        return str(value)
    if isinstance(value, list | tuple) and value and all(isinstance(name, str) for name in value):
        return tuple(value)
    raise UnsupportedOption(
        f"{option} is by {str(value)[:60]!r}.",
        hint="Use 'args', 'task', or a list of arguments' names; or give a key.",
    )


def _policy(value: object) -> SingletonPolicy:
    try:
        return SingletonPolicy(str(value)) if value is not None else SingletonPolicy.SKIP
    except ValueError:
        raise UnsupportedOption(
            f"unique's policy is {str(value)!r}, which there is not.",
            hint=f"Use one of: {', '.join(SingletonPolicy)}.",
        ) from None


def _is_while_waiting(value: object) -> bool:
    if value in (None, "running", "waiting or running"):
        return False
    if value == "waiting":
        return True
    raise UnsupportedOption(
        f"unique is while {str(value)!r}.",
        hint="Use 'waiting', or 'running', which is until the job has ended.",
    )
