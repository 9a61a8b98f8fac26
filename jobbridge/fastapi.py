"""For applications that use FastAPI: a session of the request, whose commit sends the tasks; see docs/fastapi.md."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from fastapi import Depends
from sqlalchemy.orm import Session, sessionmaker
from starlette.concurrency import run_in_threadpool

from jobbridge.runners.apps import current_app

if TYPE_CHECKING:
    from jobbridge.app.application import Celery


def job_session(factory: sessionmaker[Session], *, app: Celery | None = None) -> Any:
    """Give what makes `session: Annotated[Session, …]` one transaction per request, which sends the tasks.

    Tasks that the path operation sends belong to it, whether it is `def` or `async def`. It is committed before the
    answer is sent, so who gets the answer finds row and job; an exception, also an HTTPException, rolls it back.

    Args:
        factory: Makes the session; its engine is one of psycopg 3 (`postgresql+psycopg://`), on the jobs' database.
        app: Whose tasks; by default the application's.
    """

    async def in_transaction() -> AsyncIterator[Session]:
        # On a thread is what waits for Postgres. The block is not: what it sets is to be seen by the path operation.
        session = factory()
        try:
            with (app or current_app()).enqueue_on(session):
                yield session
            await run_in_threadpool(session.commit)
        finally:
            await run_in_threadpool(session.close)  # rolls back what is not committed

    return Depends(in_transaction, scope="function")
