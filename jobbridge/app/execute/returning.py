"""A message that goes back to its queue because its worker is to leave it, or cannot start it now."""

from __future__ import annotations

import time
from typing import Final, NoReturn

from celery.exceptions import Reject

from jobbridge.broker import UNCOUNTED

#: Before a message goes back to a queue that its worker is to leave, so that it has heard of that by then. Seconds.
BEFORE_GIVING_BACK: Final = 0.1
#: What a worker had taken goes back without another pause, for so long: others wait behind it. Seconds.
_TOGETHER: Final = 0.5

_paused_until = float("-inf")


def give_back(reason: str, *, pauses_once: bool) -> NoReturn:
    """Have the message wait in its queue as before; not counted as a delivery.

    Args:
        reason: For the log.
        pauses_once: Of many that go back together, only the first makes this thread pause.

    Raises:
        Reject: Always.
    """
    global _paused_until
    if not pauses_once or time.monotonic() > _paused_until:
        time.sleep(BEFORE_GIVING_BACK)
        _paused_until = time.monotonic() + _TOGETHER
    raise Reject(reason, requeue=UNCOUNTED)  # type: ignore[arg-type]  # Celery passes it on
