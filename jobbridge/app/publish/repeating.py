"""Writing again while Postgres is away, as the publish policy says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from kombu.exceptions import OperationalError
from kombu.utils.functional import retry_over_time

from jobbridge.errors import DatabaseUnavailable


def repeating(write: Callable[[Any], Any], caller: Any, options: Mapping[str, Any]) -> Any:
    """Do `write`, on the caller's connection if there is one; else again as Celery's options say.

    A second try with the same delivery finds its own row when the first one's commit went through unseen. In the
    caller's transaction there is no second try: it is the caller's.
    """
    if caller is not None or not options.get("retry"):
        return write(caller)
    policy = options.get("retry_policy") or {}
    return retry_over_time(
        write,
        (OperationalError, DatabaseUnavailable),
        args=(None,),
        max_retries=policy.get("max_retries", 3),
        interval_start=policy.get("interval_start", 0),
        interval_step=policy.get("interval_step", 0.2),
        interval_max=policy.get("interval_max", 1),
    )
