"""The only place that wires objects, and the only caller of the settings' reader."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

from jobbridge.app.application import Celery
from jobbridge.core.keys import Engine
from jobbridge.settings import Settings, load_settings

if TYPE_CHECKING:
    from jobbridge.app.observer import Observer
    from jobbridge.maintenance.maintainer import Maintainer

_default_app: Celery | None = None
_lock = threading.Lock()


class _ShippedApp(Celery):
    is_shipped = True


def get_settings(**arguments: Any) -> Settings:
    """Read the settings now.

    Raises:
        ConfigurationError: A value does not fit.
    """
    return load_settings(**arguments)


def default_app() -> Celery:
    """Give the app that `celery -A jobbridge` serves.

    It has the handlers of `jobbridge.handlers`, and the configuration of `celeryconfig.py` if there is one.
    """
    global _default_app
    with _lock:
        if _default_app is None:
            _default_app = make_app()
        return _default_app


def make_app(settings: Settings | None = None) -> Celery:
    """Make an app with the handlers that JobBridge ships."""
    app = _ShippedApp("jobbridge", settings=settings, set_as_current=True)
    app.config_from_object("celeryconfig", silent=True)
    app.conf.include = [*app.conf.include, "jobbridge.handlers.pack"]
    app.conf.job_artifacts = [
        *(app.conf.get("job_artifacts") or ()),
        "jobbridge.handlers.artifacts:artifacts_of",
    ]
    return app


def _temporal_delivery(app: Celery) -> Any:
    from jobbridge.errors import EngineUnavailable

    try:
        from jobbridge.temporal.deliver.delivery import TemporalDelivery
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "temporalio":
            raise
        raise EngineUnavailable(
            "The engine 'temporal' needs the package temporalio, which is not installed.",
            hint="Install it with `pip install 'jobbridge[temporal]'`, or use engine='celery'.",
        ) from None
    return TemporalDelivery(app.settings, app)


def make_maintainer(app: Celery, engine: Engine | None = None, holder: str | None = None) -> Maintainer:
    """Make what looks after the jobs of an app, for a worker of that engine or for a process of its own."""
    from jobbridge.maintenance.services import make_maintainer

    return make_maintainer(
        app, engine, holder, make_sweeper=_temporal_relay, make_settler=_temporal_reconciler
    )


def _temporal_relay(app: Celery) -> Any:
    delivery: Any = app.delivery(Engine.TEMPORAL)  # tells what to install, if its extra is missing
    from jobbridge.temporal.deliver.relay import Relay

    return Relay(app, delivery, is_held=lambda task_id: False)


def _temporal_reconciler(app: Celery) -> Any:
    delivery: Any = app.delivery(Engine.TEMPORAL)  # tells what to install, if its extra is missing
    from jobbridge.temporal.reconcile.workflows import WorkflowReconciler

    return WorkflowReconciler(app, delivery)


def _observer(app: Celery) -> Observer | None:
    if not app.settings.tracing:
        return None
    from jobbridge.observability.setup import instrument_from_settings

    return instrument_from_settings(app)


def _dress(logger: logging.Logger, log_format: str) -> None:
    from jobbridge.observability.logs import dress

    dress(logger, log_format)


Celery.settings_loader = staticmethod(load_settings)
Celery.delivery_factories[Engine.TEMPORAL] = _temporal_delivery
Celery.maintainer_factory = staticmethod(make_maintainer)
Celery.observer_factory = staticmethod(_observer)
Celery.log_dresser = staticmethod(_dress)
Celery.default_app_loader = staticmethod(default_app)
