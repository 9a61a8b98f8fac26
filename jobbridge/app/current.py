"""The application's app, in every thread.

Celery's current app belongs to the thread that made it; the other threads, such as a web server's, have the process's
default app, and that is a plain one that nobody made unless somebody said otherwise (celery 5.7, _state.py).
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, cast

import celery
from celery import _state

if TYPE_CHECKING:
    from jobbridge.app.application import Celery

#: Celery's name for the app that it makes when somebody asks for one and there is none.
_NOBODYS = "default"

_latest: weakref.ref[Any] | None = None


def make_current(app: Celery) -> None:
    """Have the threads that made no app take this one, as the one that made it does; unless one was chosen for them."""
    global _latest
    if app.is_shipped and _latest is not None and _latest() is not None:
        return  # the application's own app is there
    _latest = weakref.ref(app)
    state: Any = _state
    default = state.default_app
    if default is None or getattr(default, "is_jobbridge", False) or default.main == _NOBODYS:
        app.set_default()


def current() -> Celery | None:
    """Give the app of this thread if it is JobBridge's, else the one that was made last; None: there is none."""
    proxy: Any = celery.current_app
    app = proxy._get_current_object()
    if not getattr(app, "is_jobbridge", False) or app.is_shipped:
        latest = _latest() if _latest is not None else None
        app = latest or (app if getattr(app, "is_jobbridge", False) else None)
    return cast("Celery | None", app)
