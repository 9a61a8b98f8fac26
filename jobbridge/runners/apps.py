"""The app that is meant when none is named."""

from __future__ import annotations

from typing import Any

import celery

from jobbridge.app.application import Celery
from jobbridge.errors import ConfigurationError


def current_app() -> Celery:
    """Give Celery's current app if it is JobBridge's, else the one that `jobbridge` ships.

    Raises:
        ConfigurationError: There is neither.
    """
    proxy: Any = celery.current_app
    app = proxy._get_current_object()
    if isinstance(app, Celery):
        return app
    if Celery.default_app_loader is None:
        raise ConfigurationError(
            "There is no app to run jobs of.", hint="Import it from jobbridge, or pass app=...."
        )
    return Celery.default_app_loader()
