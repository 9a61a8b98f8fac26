"""What no `delay()` would send is no schedule either: each of its fires would fail."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from kombu import Queue
from kombu.common import Broadcast

from jobbridge import Celery
from jobbridge.app.schedules.declared import sync_declared
from jobbridge.core.keys import Engine
from jobbridge.errors import JobBridgeError
from jobbridge.settings import load_settings

#: Options, and whether they are refused on Temporal alone.
UNSENDABLE: dict[str, tuple[dict[str, Any], bool]] = {
    "broadcast": ({"queue": "everyone"}, True),
    "without a row": ({"track": False}, True),
    "priority": ({"priority": 11}, False),
    "remote control's queue": ({"queue": "w@h.celery.pidbox"}, False),
    "compression": ({"compression": "none-such"}, False),
    "serializer": ({"serializer": "none-such"}, False),
    "eta": ({"eta": "tomorrow"}, False),
    "expires": ({"expires": "never"}, False),
    "singleton key": ({"singleton_key": 7}, False),
    "singleton policy": ({"singleton_key": "one", "singleton_policy": "first"}, False),
}


@pytest.fixture(params=list(Engine))
def app(request: pytest.FixtureRequest, database_url: str) -> Iterator[Celery]:
    settings = {
        "DATABASE_URL": database_url,
        "TEMPORAL_ADDRESS": "127.0.0.1:1",
        "JOB_RUNNER_TYPE": request.param.value,
    }
    settings["JOB_RUNNER_FALLBACK_TO_CELERY"] = "false"
    app = Celery("rehearsing", settings=load_settings(settings), set_as_current=False)
    app.conf.task_queues = [Queue("celery", routing_key="celery"), Broadcast("everyone")]

    @app.task(name="rehearsing.tick", shared=False)
    def tick() -> None: ...

    @app.task(name="rehearsing.rowless", shared=False, track=False)
    def rowless() -> None: ...

    yield app
    app.close()


def test_what_cannot_be_sent_is_named_and_the_others_are_made(app: Celery) -> None:
    is_temporal = app.default_engine is Engine.TEMPORAL
    refused = {name for name, (_, only_there) in UNSENDABLE.items() if is_temporal or not only_there}
    entries: dict[str, Any] = {
        name: {"task": "rehearsing.tick", "schedule": 60, "options": options}
        for name, (options, _) in UNSENDABLE.items()
    }
    entries["rowless task"] = {"task": "rehearsing.rowless", "schedule": 60}
    refused |= {"rowless task"} if is_temporal else set()
    entries["unknown task"] = {"task": "somebody.elses", "schedule": 60, "options": {"queue": "theirs"}}
    for name in refused - {"rowless task"}:
        with pytest.raises((JobBridgeError, Exception)):
            app.tasks["rehearsing.tick"].apply_async(**UNSENDABLE[name][0])
    app.conf.beat_schedule = entries

    synced = sync_declared(app)

    assert set(synced.refused) == refused
    assert set(synced.created) == entries.keys() - refused


def test_who_makes_one_is_told_at_once(app: Celery) -> None:
    with pytest.raises(JobBridgeError, match="remote control"):
        app.schedules.create("rehearsing.tick", "1 hour", queue="celeryev.x")
    assert list(app.schedules.list()) == []
