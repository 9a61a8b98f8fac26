"""Which handlers there are, and making an app offer them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobbridge.app.execute.handlers import add_handler, declared, is_offered
from jobbridge.runners.apps import current_app

if TYPE_CHECKING:
    from jobbridge.app.application import Celery
    from jobbridge.core.handlers import HandlerSpec


def register_all_job_handlers(
    app: Celery | None = None, *, include_enterprise: bool | None = None
) -> list[str]:
    """Import the modules that the app includes, and make a task of each handler that they declare.

    Args:
        app: The modules are its `include` and `imports`, as a worker imports them. By default the current app.
        include_enterprise: With the handlers that are `enterprise_only`; by default as the app's edition says.

    Returns:
        The names of all handlers that the app offers now, sorted.

    Raises:
        ImportError: A module cannot be imported.
        DuplicateHandler: Two modules declare the same name.
    """
    app = app or current_app()
    app.loader.import_default_modules()
    app.finalize(auto=True)
    for spec in declared:
        wanted = is_offered(app, spec) if include_enterprise is None else include_enterprise
        if spec.name not in app.tasks and (wanted or not spec.enterprise_only):
            add_handler(app, spec)
        elif include_enterprise is False and spec.enterprise_only:
            app.tasks.pop(spec.name, None)
    declared.mark_initialized()
    return [spec.name for spec in get_available_job_handlers(app)]


def get_available_job_handlers(app: Celery | None = None) -> list[HandlerSpec]:
    """Give the declarations of the handlers that the app (by default the current one) offers, by name."""
    tasks = (app or current_app()).tasks
    return sorted((spec for spec in declared if spec.name in tasks), key=lambda spec: spec.name)


def initialize_job_handlers_for_worker(app: Celery | None = None) -> list[str]:
    """Do what a worker does before it takes its first job; for processes that run jobs in another way.

    Returns and raises as `register_all_job_handlers`.
    """
    app = app or current_app()
    names = register_all_job_handlers(app)
    app.loader.init_worker()
    return names
