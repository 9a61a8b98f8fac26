"""Takes so long to import that a worker which did not wait for it would refuse its jobs."""

from __future__ import annotations

import threading
from typing import Any

from jobbridge import JobContext, job

threading.Event().wait(1.5)


@job("parity.slow_to_import")
def slow_to_import(ctx: JobContext, data: dict[str, Any]) -> dict[str, Any]:
    return {**data, "engine": ctx.engine}
