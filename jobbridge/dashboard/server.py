"""A server of its own for the dashboard: uvicorn, which ends open streams when it is told to stop."""

from __future__ import annotations

from socket import socket
from typing import TYPE_CHECKING, Any

import uvicorn

from jobbridge.dashboard.access import access_log

if TYPE_CHECKING:
    from fastapi import FastAPI

    from jobbridge.dashboard.api.long_poll import Waiters
    from jobbridge.dashboard.live.broadcaster import Live

#: Seconds for answers that are on their way.
GRACE = 10


class Server(uvicorn.Server):
    """Uvicorn waits for open answers before it tells the application that it stops, and a stream would not end.

    Nor would who waits for a job be answered in time: that is cut off after `GRACE`, with an error.

    Source: uvicorn 0.54, `Server.shutdown`.
    """

    def __init__(self, config: uvicorn.Config, live: Live, waiters: Waiters | None = None) -> None:
        super().__init__(config)
        self._live = live
        self._waiters = waiters

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        self._live.here().stop()
        if self._waiters is not None:
            self._waiters.stop()
        await super().shutdown(sockets)


def serve(application: FastAPI, **options: Any) -> None:
    """Serve until SIGINT or SIGTERM.

    Args:
        application: Of `make_dashboard`.
        options: Of `uvicorn.Config`.
    """
    config = uvicorn.Config(application, timeout_graceful_shutdown=GRACE, **options)
    access_log.install()  # a configuration of logging leaves filters of loggers alone
    dashboard = application.state.dashboard
    server = Server(config, dashboard.live, dashboard.waiters)
    try:
        server.run()
    except KeyboardInterrupt:
        return  # uvicorn raises what it had caught, once it has stopped
    if not server.started:
        raise SystemExit(3)  # as `uvicorn.run`: it has said why
