"""An ordinary Celery project on an old broker: what it leaves there is to be taken over."""

from __future__ import annotations

from typing import Any

from celery import Celery

from tests.integration.cutover import app as tasks


def old_app(url: str, **settings: Any) -> Celery:
    """Make the project's app, as it was before: plain Celery, with the tasks that all apps share here."""
    app = Celery("cutover", broker=url, set_as_current=False)
    app.conf.update(accept_content=["json", "pickle"], task_ignore_result=True, **settings)
    app.finalize()
    assert tasks.run_once.name in app.tasks
    return app
