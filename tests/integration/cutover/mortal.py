"""The command, which is killed at a point that the environment names: `DIES_AT=module:function:n`.

The n-th call of that function, counted from 1, kills the process before it does anything (`before`), or when it is done
(`after`, as a fourth part). `PAGE=20` has an old broker read in pages of 20: fewer messages have as many places to die
in.
"""

from __future__ import annotations

import os
import signal
import sys
from importlib import import_module
from typing import Any

from jobbridge.cli.root import run


def arm(point: str) -> None:
    module_name, name, number, *when = point.split(":")
    owner: Any = import_module(module_name)
    *path, name = name.split(".")
    for part in path:
        owner = getattr(owner, part)
    function, left = getattr(owner, name), int(number)

    def mortal(*args: Any, **kwargs: Any) -> Any:
        nonlocal left
        left -= 1
        if not left and when != ["after"]:
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*args, **kwargs)
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, mortal)


def turn_pages_of(size: int) -> None:
    for kind in ("amqp", "redis", "sqla"):
        source: Any = import_module(f"jobbridge.cutover.sources.{kind}")
        assert source.PAGE
        source.PAGE = size


if __name__ == "__main__":
    if page := os.environ.get("PAGE"):
        turn_pages_of(int(page))
    if point := os.environ.get("DIES_AT"):
        arm(point)
    sys.exit(run(sys.argv[1:]))
