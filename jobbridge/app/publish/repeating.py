"""Writing again while Postgres is away, as the publish policy says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import count
from typing import Any

from kombu.exceptions import OperationalError
from kombu.utils.functional import retry_over_time

from jobbridge.errors import DatabaseUnavailable
from jobbridge.postgres import on_loop

_AGAIN = (OperationalError, DatabaseUnavailable)


def repeating(write: Callable[[Any], Any], caller: Any, options: Mapping[str, Any]) -> Any:
    """Do `write`, on the caller's connection if there is one; else again as Celery's options say.

    A second try with the same delivery finds its own row when the first one's commit went through unseen. In the
    caller's transaction there is no second try: it is the caller's.
    """
    if caller is not None or not options.get("retry"):
        return write(caller)
    policy = options.get("retry_policy") or {}
    if on_loop.current() is not None:
        return _repeating_on_loop(write, policy)
    return retry_over_time(
        write,
        _AGAIN,
        args=(None,),
        max_retries=policy.get("max_retries", 3),
        interval_start=policy.get("interval_start", 0),
        interval_step=policy.get("interval_step", 0.2),
        interval_max=policy.get("interval_max", 1),
    )


def _repeating_on_loop(write: Callable[[Any], Any], policy: Mapping[str, Any]) -> Any:
    """Do what kombu's `retry_over_time` does, which sleeps for its whole thread."""
    most, longest = policy.get("max_retries", 3), policy.get("interval_max", 1)
    pause, step = policy.get("interval_start", 0), policy.get("interval_step", 0.2)
    for tries in count(1):
        try:
            return write(None)
        except _AGAIN:
            if most is not None and tries > most:
                raise
        on_loop.sleep(min(pause, longest))
        pause += step
    raise AssertionError("unreachable")
