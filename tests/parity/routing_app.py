"""An app with exchanges of every type, as Celery's documentation routes (userguide/routing)."""

from __future__ import annotations

from typing import Any

from kombu import Exchange, Queue
from kombu.common import Broadcast

from jobbridge import Celery
from tests.parity.tasks import make_app


def make_routing_app(**options: Any) -> Celery:
    app = make_app(include=["tests.parity.tasks"], **options)
    app.conf.task_queues = [
        Queue("celery", routing_key="celery"),
        Queue("letters", Exchange("post", type="topic"), routing_key="mail.#"),
        Queue("shouts", Exchange("loud", type="fanout")),
        Broadcast("everyone"),
    ]
    app.conf.task_routes = {"parity.who": {"queue": "letters", "routing_key": "mail.send"}}
    return app


app = make_routing_app()
