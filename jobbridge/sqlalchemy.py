"""For applications that use SQLAlchemy: the jobs' database, and a session whose commit sends; see docs/fastapi.md."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy.engine import URL
from sqlalchemy.orm import Session, sessionmaker

from jobbridge.bootstrap import get_settings
from jobbridge.errors import ConfigurationError
from jobbridge.postgres.target import Target
from jobbridge.runners.apps import current_app

if TYPE_CHECKING:
    from jobbridge.app.application import Celery
    from jobbridge.settings import Settings


def database_url(settings: Settings | None = None) -> URL:
    """Give the jobs' database as SQLAlchemy takes it, for `create_engine`.

    Args:
        settings: Instead of what the environment says.

    Raises:
        ConfigurationError: None is configured, or its URL cannot be read.
    """
    url = (settings or get_settings()).database_url
    if not url:
        raise ConfigurationError(
            "No database is configured.",
            hint="Set DATABASE_URL=postgresql://user:password@host/name, or start one with `jobbridge dev`.",
        )
    return Target.of(url).sqlalchemy_url()


@contextmanager
def begin(factory: sessionmaker[Session], *, app: Celery | None = None, **options: Any) -> Iterator[Session]:
    """Open a session whose transaction the tasks belong to that are sent inside: as `sessionmaker.begin()`, and that.

    Leaving the block commits, and so delivers; an exception rolls back, and leaves neither rows nor jobs.

    Args:
        factory: Makes the session; its engine is one of psycopg 3 (`postgresql+psycopg://`), on the jobs' database.
        app: Whose tasks; by default the application's.
        options: Of the session.
    """
    with factory(**options) as session, session.begin(), (app or current_app()).enqueue_on(session):
        yield session
