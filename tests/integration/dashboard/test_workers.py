"""The page of workers and queues, and `jobbridge queues`."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from click.testing import CliRunner
from starlette.testclient import TestClient

from jobbridge import Celery
from jobbridge.app.worker.presence import Presence
from jobbridge.cli import queues
from jobbridge.core.access import Role
from jobbridge.core.keys import Engine
from jobbridge.dashboard.application import make_dashboard
from jobbridge.settings import load_settings
from jobbridge.store.access.tokens import AccessStore
from jobbridge.store.workers.queue_pauses import QueuePauses
from tests.job_events import EventsOf
from tests.parity.tasks import make_app


@pytest.fixture
def app(database_url: str) -> Iterator[Celery]:
    app = make_app(settings=load_settings({"DATABASE_URL": database_url, "TEMPORAL_ADDRESS": "127.0.0.1:1"}))
    app.finalize()
    yield app
    app.close()


@pytest.fixture
def access(app: Celery) -> AccessStore:
    return AccessStore(app.database)


@pytest.fixture
def client(app: Celery, access: AccessStore) -> TestClient:
    token, _ = access.create("ops", Role.OPERATOR)
    made = TestClient(make_dashboard(app), base_url="https://jobs.example")
    made.headers |= {"authorization": f"Bearer {token}", "accept": "text/html"}
    return made


def test_who_runs_what_and_what_waits_where(client: TestClient, app: Celery) -> None:
    presence = Presence(app, name="one@here", engine=Engine.CELERY)
    presence.open()
    job = EventsOf()
    for event in (job.submitted(type="invoice.send"), job.started(worker_number=presence.number)):
        app.recorder.record(event)
    for queue in ("mail", "mail", "celery"):
        app.tasks["parity.total"].apply_async(args=[[1]], queue=queue)

    page = client.get("/workers").text

    assert "one@here" in page
    assert "invoice.send" in page
    assert f"/jobs/{job.key.job_id}" in page
    cells = " ".join(page.split("mail</a>")[1].split("</tr>")[0].split())
    assert "nobody serves it" in cells
    assert '<td class="number">2</td>' in cells
    presence.close()
    assert "No worker runs." in client.get("/workers").text


def test_a_queue_is_paused_with_a_note_and_resumed(
    client: TestClient, app: Celery, access: AccessStore
) -> None:
    app.tasks["parity.total"].apply_async(args=[[1]], queue="mail")

    page = client.post("/queues/pause", data={"queue": "mail", "note": "provider is down"}).text
    assert "by ops: provider is down" in page
    assert [pause.queue for pause in QueuePauses(app.database).all()] == ["mail"]
    assert "provider is down" not in client.post("/queues/resume", data={"queue": "mail"}).text
    assert QueuePauses(app.database).all() == []

    noted = [(action.action, action.subject, action.reason) for action in access.actions()]
    assert noted == [("resume queue", "mail", None), ("pause queue", "mail", "provider is down")]


@pytest.mark.parametrize(
    ("form", "status"), [({}, 400), ({"queue": "q" * 300}, 422), ({"queue": "a", "note": "n" * 2000}, 422)]
)
def test_what_cannot_be_paused_is_refused(client: TestClient, form: dict[str, str], status: int) -> None:
    assert client.post("/queues/pause", data=form).status_code == status


def test_queues_are_listed_paused_and_resumed_from_a_shell(
    app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queues, "load_app", lambda name: app)
    app.tasks["parity.total"].apply_async(args=[[1]], queue="mail")
    shell = CliRunner()

    assert (
        shell.invoke(queues.command, ["pause", "mail", "--note", "night"]).output
        == "The queue mail is paused.\n"
    )
    listed = json.loads(shell.invoke(queues.command, ["list", "--paused", "--json"]).output)
    [queue] = listed["queues"]
    assert (queue["name"], queue["pause"]["note"]) == ("mail", "night")
    assert [waiting["ready"] for waiting in queue["waiting"] if waiting["engine"] == "celery"] == [1]
    assert "mail" in shell.invoke(queues.command, ["list"]).output
    assert shell.invoke(queues.command, ["resume", "mail"]).output == "The queue mail runs again.\n"
    assert shell.invoke(queues.command, ["list", "--paused"]).output == "There are no such queues.\n"
