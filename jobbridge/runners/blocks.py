"""The `with` blocks of the app that is meant when none is named."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from jobbridge.app.loops.either import either
from jobbridge.runners.apps import current_app

if TYPE_CHECKING:
    from jobbridge.app.application import Celery


@contextmanager
def bulk(*, app: Celery | None = None) -> Iterator[None]:
    """Send what is sent inside in few statements; see `Celery.bulk`."""
    with (app or current_app()).bulk():
        yield


@either
def transaction(connection: Any = None, *, app: Celery | None = None) -> Iterator[None]:
    """Send what is sent inside in the caller's transaction; see `Celery.transaction`."""
    with (app or current_app()).transaction(connection):
        yield
