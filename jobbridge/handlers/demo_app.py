"""What the demo's workers serve: the handlers of the pack, and one job that waits for a person."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jobbridge.bootstrap import make_app

if TYPE_CHECKING:
    from jobbridge import Celery
    from jobbridge.settings import Settings


def make_demo_app(settings: Settings | None = None) -> Celery:
    """Make the app of the demo."""
    made = make_app(settings)
    made.conf.include = [*made.conf.include, "jobbridge.handlers.approval"]
    return made


def __getattr__(name: str) -> Any:
    if (
        name == "app"
    ):  # what `celery -A jobbridge.handlers.demo_app:app` looks for; it reads the environment then
        return make_demo_app()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
