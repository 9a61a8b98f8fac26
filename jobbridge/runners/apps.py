"""The app that is meant when none is named."""

from __future__ import annotations

from jobbridge.app.application import Celery
from jobbridge.app.current import current
from jobbridge.errors import ConfigurationError


def current_app() -> Celery:
    """Give the application's app, in every thread of its process; else the one that `jobbridge` ships.

    Raises:
        ConfigurationError: There is neither.
    """
    app = current()
    if app is not None:
        return app
    if Celery.default_app_loader is None:
        raise ConfigurationError(
            "There is no app to run jobs of.", hint="Import it from jobbridge, or pass app=...."
        )
    return Celery.default_app_loader()
