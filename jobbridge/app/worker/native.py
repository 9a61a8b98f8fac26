"""A thread of the operating system and its sleep, also where gevent has put greenlets in the place of both.

What watches over greenlets cannot be one: it would wait until the one that hangs lets others run.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import Any


def start_thread(run: Callable[[], object], name: str) -> None:
    """Run it in a thread that ends with the process."""
    if not _is_patched("thread"):
        threading.Thread(target=run, name=name, daemon=True).start()
        return
    _original("_thread", "start_new_thread")(run, ())


def sleep(seconds: float) -> None:
    """Wait, in such a thread."""
    (_original("time", "sleep") if _is_patched("time") else time.sleep)(seconds)


def _is_patched(module: str) -> bool:
    monkey: Any = sys.modules.get("gevent.monkey")
    return monkey is not None and monkey.is_module_patched("threading" if module == "thread" else module)


def _original(module: str, name: str) -> Any:
    return sys.modules["gevent.monkey"].get_original(module, name)
