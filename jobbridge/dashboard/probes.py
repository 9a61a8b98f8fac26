"""For load balancers: whether it lives, and whether it can be used. Neither waits for a free thread or connection."""

from __future__ import annotations

import asyncio
import time
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psycopg
from starlette.responses import JSONResponse, Response

from jobbridge.core.keys import Engine
from jobbridge.dashboard.access.request_context import RequestContext, Rule
from jobbridge.errors import DatabaseError, DatabaseUnavailable, EngineUnavailable
from jobbridge.postgres.connect import connect
from jobbridge.store.schema_range import check_revision

if TYPE_CHECKING:
    from jobbridge.app.application import Celery
    from jobbridge.store.database import Database

#: Seconds. Anybody may ask, so an answer is good for a moment.
PATIENCE = 2
FRESH = 1.0


@dataclass(slots=True)
class Readiness:
    """What was seen last.

    Attributes:
        reason: Why it is not ready, as the name of an error; None: it is.
    """

    reason: str | None = None
    looked_at: float = float("-inf")
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


async def healthz(context: RequestContext) -> Response:
    """This process answers; nothing else is asked, so that a database that is away restarts nobody."""
    return JSONResponse({"status": "ok"})


async def readyz(context: RequestContext) -> Response:
    """The database can be reached, and is at this release. A connection of its own asks: a full pool is no reason."""
    readiness = context.dashboard.readiness
    async with readiness.lock:
        if time.monotonic() - readiness.looked_at > FRESH:
            # Not on the server's threads: they may all be busy.
            readiness.reason = await _looked(context.app.database)
            readiness.looked_at = time.monotonic()
    told = {
        "status": "ready" if readiness.reason is None else "not ready",
        "temporal": _temporal(context.app),
    }
    if readiness.reason is not None:
        told["reason"] = readiness.reason
    return JSONResponse(told, status_code=200 if readiness.reason is None else 503)


async def _looked(database: Database) -> str | None:
    try:
        async with asyncio.timeout(
            2 * PATIENCE
        ):  # a network that swallows packets ends neither of the two waits
            return await asyncio.to_thread(_reason, database)
    except TimeoutError:
        return DatabaseUnavailable.__name__


def _reason(database: Database) -> str | None:
    try:
        with closing(
            connect(
                database.target,
                "readiness",
                settings={"statement_timeout": f"{PATIENCE}s"},
                parameters={"connect_timeout": PATIENCE},
            )
        ) as connection:
            check_revision(connection)
    except psycopg.Error:
        return DatabaseUnavailable.__name__
    except DatabaseError as error:
        return type(error).__name__
    return None


def _temporal(app: Celery) -> str:
    """Say what is known of Temporal. It is no reason to be ready or not: all pages work without it."""
    if app.default_engine is not Engine.TEMPORAL:
        return "not the default engine"
    try:
        return "was away lately" if app.delivery(Engine.TEMPORAL).known_failure() else "no failure known"
    except EngineUnavailable:
        return "not installed"


RULES = (
    Rule("/healthz", "healthz", healthz, None),
    Rule("/readyz", "readyz", readyz, None),
)
