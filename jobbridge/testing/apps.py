"""The application under test: which it is, and how it is led to a test's own database and back."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from celery import _state
from celery.app.utils import find_app
from kombu.pools import connections, producers

from jobbridge.app.current import current
from jobbridge.app.urls import BROKER_SCHEME, default_broker_url
from jobbridge.errors import ConfigurationError

if TYPE_CHECKING:
    from jobbridge.app.application import Celery

#: What an app makes on first use, and that depends on where its database is.
_MADE = (
    "amqp", "chords", "control", "database", "events", "fan_outs", "job_steps", "jobs", "keys", "recorder",
    "result_listener", "schedules", "servers", "shares_database_with_broker", "tenants", "workers",
)  # fmt: skip
#: With Celery they win over what an app's configuration says.
_ENVIRONMENT = (
    "CELERY_BROKER_URL",
    "CELERY_BROKER_READ_URL",
    "CELERY_BROKER_WRITE_URL",
    "CELERY_RESULT_BACKEND",
)
_HINT = (
    "Have a fixture `celery_app` that gives your application, set `jobbridge_app = package.module:app` in the ini "
    "file, or import your application before the test."
)


def app_of(given: Any = None, named: str = "") -> Celery:
    """Give the app that is meant: the one that is given, else the one that is named, else the process's.

    Raises:
        ConfigurationError: There is none, or it is a plain Celery app.
    """
    app = given
    if app is None and named:
        try:
            app = find_app(named)
        except (ImportError, AttributeError) as error:
            raise ConfigurationError(f"The app {named!r} cannot be loaded: {error}.", hint=_HINT) from error
    app = app if app is not None else current()
    if app is None:
        raise ConfigurationError("No application is under test.", hint=_HINT)
    if not getattr(app, "is_jobbridge", False):
        raise ConfigurationError(
            f"The application under test, {app.main!r}, is a plain Celery app.",
            hint="Write `from jobbridge import Celery` instead of `from celery import Celery`.",
        )
    found: Celery = app._get_current_object() if hasattr(app, "_get_current_object") else app
    return found


@contextmanager
def rebound(
    app: Celery,
    *,
    database_url: str,
    settings: Mapping[str, Any] | None = None,
    conf: Mapping[str, Any] | None = None,
) -> Iterator[Celery]:
    """Have an app work in another database until the block ends; whatever it had opened before stays as it was.

    Args:
        app: Also its broker and its results are there.
        database_url: Of a migrated database.
        settings: More of `jobbridge.settings.Settings`, by field.
        conf: More of Celery's settings.
    """
    app.finalize()
    environment = {name: os.environ.pop(name) for name in _ENVIRONMENT if name in os.environ}
    chosen = {
        "broker_url": default_broker_url(database_url),
        "broker_read_url": None,
        "broker_write_url": None,
        "result_backend": f"{BROKER_SCHEME}://",
        "task_always_eager": False,
        **(conf or {}),
    }
    attributes: Any = app.__dict__
    former = {name: attributes.pop(name) for name in _MADE if name in attributes}
    kept: dict[str, Any] = {
        name: getattr(app, name) for name in ("_settings", "_deliveries", "_pool", "_local", "_backend_cache")
    }
    changes = app.conf.changes
    former_conf = {name: changes[name] for name in chosen if name in changes}
    update = {"database_url": database_url, "fallback_to_celery": False, "tracing": False, **(settings or {})}
    app._settings = app.settings.model_copy(update=update)
    _forget(app)
    app.conf.update(chosen)
    celerys: Any = _state
    former_apps = celerys._tls.current_app, celerys.default_app
    app.set_current()  # Celery's tracer asks for it, in every thread
    app.set_default()
    try:
        yield app
    finally:
        _close(app)
        celerys._tls.current_app, celerys.default_app = former_apps
        for name in _MADE:
            attributes.pop(name, None)
        attributes.update(former)
        for name in chosen:
            changes.pop(name, None)
        changes.update(former_conf)
        _forget(app)
        attributes.update(kept)
        os.environ.update(environment)


def _forget(app: Any) -> None:
    app._deliveries = {}
    app._pool = None
    app._local = threading.local()
    app._backend_cache = None
    for task in app.tasks.values():  # a tracer keeps the backend for which it was made
        task.__trace__ = None
        task._backend = None


def _producer_pool_of(app: Any) -> Any:
    return app.amqp._producer_pool if "amqp" in vars(app) else None


def _close(app: Any) -> None:
    while app._deliveries:
        app._deliveries.popitem()[1].close()
    attributes = vars(app)
    with suppress(Exception):  # its connections may be gone; there is nothing to save in them
        for pools, pool in ((producers, _producer_pool_of(app)), (connections, app._pool)):
            if pool is not None:
                pool.force_close_all()
                for key in [
                    key for key, value in pools.items() if value is pool
                ]:  # kombu would give it again
                    dict.__delitem__(pools, key)  # by the hash of a connection, not by the connection
    for name in ("result_listener", "database"):
        if name in attributes:
            attributes[name].close()
