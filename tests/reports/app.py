"""What the worker of the reports serves, with settings that came along from Redis."""

from __future__ import annotations

from typing import Any

from jobbridge import Celery
from tests.parity.tasks import make_app


def make_reports_app(**options: Any) -> Celery:
    app = make_app(include=["tests.parity.tasks", "tests.reports.tasks"], **options)
    app.conf.broker_transport_options = {"visibility_timeout": 1}  # Redis' own, in seconds
    app.conf.timezone = "Asia/Shanghai"
    app.conf.result_expires = 0
    return app


app = make_reports_app()
