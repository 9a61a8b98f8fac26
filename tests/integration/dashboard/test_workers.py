"""The page of workers and queues, and `jobbridge queues`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html import unescape

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


def test_a_pause_of_a_queue_that_nobody_knows_says_so(client: TestClient, app: Celery) -> None:
    app.tasks["parity.total"].apply_async(args=[[1]], queue="mail")
    client.post("/queues/pause", data={"queue": "mail"})

    page = unescape(client.post("/queues/pause", data={"queue": "mial"}).text)

    assert page.count("Nobody knows a queue") == 1
    assert "Nobody knows a queue 'mial'" in page
    assert "Nobody knows a queue 'mial'" in unescape(client.get("/queues/mial").text)
    assert "Nobody knows a queue" not in client.get("/queues/mail").text


def test_a_queue_has_a_page_with_what_waits_who_serves_it_and_how_it_went(
    client: TestClient, app: Celery, access: AccessStore
) -> None:
    name = "mail & <b>more"
    for state in ("completed", "completed", "failed"):
        job = EventsOf()
        app.recorder.record(job.submitted(queue=name))
        app.recorder.record(job.started(queue=name))
        app.recorder.record(job.completed(1) if state == "completed" else job.failed(1))
        waited, hours = ("30 seconds", 1) if state == "completed" else ("90 seconds", 2)
        with app.database.connection() as own:
            own.execute(
                """
                UPDATE jobs SET created_at = now() - %(hours)s * interval '1 hour' - %(waited)s::interval,
                    run_at = NULL, started_at = now() - %(hours)s * interval '1 hour',
                    completed_at = now() - %(hours)s * interval '1 hour'
                WHERE job_id = %(job_id)s
                """,
                {"waited": waited, "hours": hours, "job_id": job.key.job_id},
            )
    for queue in (name, name, "other"):
        app.tasks["parity.total"].apply_async(args=[[1]], queue=queue)
    [path] = re.findall(r'href="(/queues/mail[^"]+)"', client.get("/workers").text)

    def page() -> str:
        return " ".join(re.sub(r"<[^>]+>", " ", client.get(unescape(path)).text).split())

    told = page()
    assert "<b>more" not in client.get(unescape(path)).text
    assert "nobody serves it" in told
    assert "celery 2 0" in told, "two wait, all are due"
    assert "24 hours 3 2 1 0 30 s 1 min" in told
    assert re.search(r"\d\d:00 2 2 0 0 30 s 30 s .*\d\d:00 1 0 1 0 1 min 1 min", told)
    assert "Nobody has lately paused it" in told

    done = client.post("/queues/pause", data={"queue": name, "page": "queue", "note": "passwd: hunter2 down"})
    assert str(done.url).endswith(unescape(path)), "one comes back to the page of the queue"
    client.post("/queues/resume", data={"queue": name, "page": "queue"})
    client.post("/queues/pause", data={"queue": name, "page": "queue", "note": "again"})
    told = page()
    assert re.search(r"Paused [\w. ]+ by ops: again\. No worker takes anything new", told)
    assert re.search(
        r"ops pause queue done again .* ops resume queue done .* ops pause queue done passwd: ••", told
    )
    assert "hunter2" not in told


def test_the_page_of_a_queue_names_the_workers_that_serve_it(client: TestClient, app: Celery) -> None:
    presence = Presence(app, name="one@here", engine=Engine.CELERY)
    presence.open()
    page = client.get("/queues/celery").text
    presence.close()

    assert "one@here" in page
    assert "celery -A APP worker -Q celery" in client.get("/queues/celery").text


def test_queues_of_any_name_are_on_the_page_of_workers(client: TestClient, app: Celery) -> None:
    for queue in ("a/b", "..", "pause", "50 %", "é?x#y"):
        app.tasks["parity.total"].apply_async(args=[[1]], queue=queue)

    paths = re.findall(r'<th scope="rowgroup"[^>]*><a href="([^"]+)"', client.get("/workers").text)

    assert len(paths) == 5
    for path in paths:
        assert client.get(unescape(path)).status_code == 200, path


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
