"""Who waits for a job over a real connection: who hangs up waits no longer, and a server that stops keeps nobody."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from uuid import uuid4

import httpx
import pytest
import uvicorn

from jobbridge import Celery
from jobbridge.core.access import Role
from jobbridge.dashboard.api.long_poll import Waiters
from jobbridge.dashboard.application import make_dashboard
from jobbridge.dashboard.server import Server
from jobbridge.settings import load_settings
from jobbridge.store.access.tokens import AccessStore
from tests.parity.tasks import make_app
from tests.support import wait_until


@dataclass
class Served:
    """A dashboard at an address of its own."""

    app: Celery
    server: Server
    thread: threading.Thread
    waiters: Waiters
    client: httpx.Client

    def job(self) -> str:
        return str(self.app.enqueue("parity.total", [[1]]).job_id)

    def waiting(self) -> int:
        return self.waiters._waiting.total()


@pytest.fixture
def served(database_url: str) -> Iterator[Served]:
    app = make_app(settings=load_settings({"DATABASE_URL": database_url, "TEMPORAL_ADDRESS": "127.0.0.1:1"}))
    app.finalize()
    dashboard = make_dashboard(app)
    shared = dashboard.state.dashboard
    config = uvicorn.Config(dashboard, port=0, log_level="warning", timeout_graceful_shutdown=30)
    server = Server(config, shared.live, shared.waiters)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started)
        port = server.servers[0].sockets[0].getsockname()[1]
        token, _ = AccessStore(app.database).create(str(uuid4()), Role.VIEWER)
        headers = {"authorization": f"Bearer {token}"}
        with httpx.Client(
            base_url=f"http://127.0.0.1:{port}/api/v1",
            headers=headers,
            timeout=60,
            limits=httpx.Limits(max_connections=None),
        ) as client:
            yield Served(app, server, thread, shared.waiters, client)
    finally:
        server.should_exit = server.force_exit = True
        thread.join(timeout=10)
        app.close()


def test_who_hangs_up_waits_no_longer(served: Served) -> None:
    path = f"/jobs/{served.job()}/wait?seconds=60"
    for _ in range(3):
        with pytest.raises(httpx.ReadTimeout):
            served.client.get(path, timeout=httpx.Timeout(60, read=0.3))

    wait_until(lambda: served.waiting() == 0, timeout=10)


def test_a_server_that_stops_answers_whoever_waits(served: Served) -> None:
    path = f"/jobs/{served.job()}/wait?seconds=60"
    with ThreadPoolExecutor(5) as pool:
        waiting = [pool.submit(served.client.get, path) for _ in range(5)]
        wait_until(lambda: served.waiting() == 5)

        served.server.should_exit = True
        answers = [each.result() for each in waiting]

    assert [(answer.status_code, answer.json()["ended"]) for answer in answers] == [(200, False)] * 5
    served.thread.join(timeout=10)
    assert not served.thread.is_alive()


def test_two_hundred_who_wait_hold_nobody_up(served: Served) -> None:
    job = served.job()
    with ThreadPoolExecutor(200) as pool, ExitStack() as ended:
        ended.callback(served.app.cancel_job, job)
        waiting = [pool.submit(served.client.get, f"/jobs/{job}/wait?seconds=60") for _ in range(200)]
        wait_until(lambda: served.waiting() == 200, timeout=30)

        assert served.client.get("/jobs").status_code == 200
        ended.close()
        answers = [each.result() for each in waiting]

    assert {(answer.status_code, answer.json()["ended"]) for answer in answers} == {(200, True)}
