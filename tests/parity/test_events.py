"""What people see of jobs that wait, and how they answer: pages, links, API and commands; the jobs really wait."""

from __future__ import annotations

import json
import re
import uuid
from datetime import timedelta
from html import unescape
from typing import Any

import pytest
from starlette.testclient import TestClient

from jobbridge import event_link
from jobbridge.cli import events as events_command
from jobbridge.cli.root import run
from jobbridge.core.access import Role
from jobbridge.dashboard.application import make_dashboard
from jobbridge.diagnosis.explain import explain
from jobbridge.diagnosis.waits import check_waits
from jobbridge.errors import ConfigurationError, JobNotFound, UnsupportedOption
from jobbridge.store.access.tokens import AccessStore
from tests.parity import waiting_tasks  # noqa: F401  # its handlers are the app's
from tests.parity.conftest import World
from tests.support import wait_until

HTML = {"accept": "text/html"}


def asked(world: World, *, tenant: str = "acme", **data: Any) -> str:
    """Send a job that asks, and wait until it waits; gives its id."""
    job_id = str(
        world.app.enqueue("parity.asks", data, tenant=tenant, metadata={"title": "Invoice <7>"}).job_id
    )
    world.wait_for_status(job_id, "waiting")
    return job_id


def client_of(world: World, role: Role, tenant: str | None = None) -> TestClient:
    token, _ = AccessStore(world.app.database).create(str(uuid.uuid4()), role, tenant=tenant)  # type: ignore[arg-type]
    made = TestClient(make_dashboard(world.app), base_url="https://jobs.example", follow_redirects=False)
    made.headers["authorization"] = f"Bearer {token}"
    return made


def visitor(world: World) -> TestClient:
    return TestClient(make_dashboard(world.app), base_url="https://jobs.example", headers=HTML)


def link_of(world: World, job_id: str) -> str:
    [step] = [each for each in world.details(job_id) if each["step_name"] == "link"]
    return str(step["result"])


def form_token(page: str) -> str:
    found = re.search(r'name="form_token" value="(\w+)"', page)
    assert found is not None, page
    return found[1]


def actions_on(world: World, job_id: str) -> list[tuple[str, str, str]]:
    rows = AccessStore(world.app.database).actions()
    return [(row.action, row.outcome, row.actor) for row in reversed(rows) if row.subject == job_id]


def test_a_link_answers_once_and_to_look_at_it_changes_nothing(world: World) -> None:
    job_id = asked(world)
    path, person = link_of(world, job_id), visitor(world)
    assert path.startswith("/public/events/")

    pages = [person.get(path) for _ in range(2)]
    assert [page.status_code for page in pages] == [200, 200]
    text = unescape(pages[0].text)
    assert "Invoice <7>" in text
    assert "<7>" not in pages[0].text
    assert not [each for each in (job_id, "acme", "parity.asks") if each in text]
    assert person.head(path).status_code == 200
    assert world.row(job_id)["status"] == "waiting"
    choice = {"choice": "decline", "comment": "too much", "by": "Ada"}
    assert person.post(path, data=choice).status_code == 403  # it comes from no page of ours
    good = {**choice, "form_token": form_token(text)}
    assert person.post(path, data=good, headers={"origin": "https://evil.example"}).status_code == 403
    assert person.post(path, data={**good, "choice": "delete"}).status_code == 422
    assert world.row(job_id)["status"] == "waiting"

    answered = person.post(path, data=good)
    again = person.post(path, data={**good, "choice": "approve"})

    result = world.wait_for_status(job_id, "completed")["result"]
    assert result == {"link": path, **choice}
    for page in (answered, again, person.get(path)):
        assert "Already answered" in page.text
        assert "decline" in page.text
        assert "form_token" not in page.text
    assert actions_on(world, job_id) == [("answer link", "delivered", "link: Ada")]


def test_a_link_that_is_altered_expired_or_of_another_key_is_of_no_use(world: World) -> None:
    job_id = asked(world)
    path, person = link_of(world, job_id), visitor(world)
    altered = path[:-6] + ("AAAAAA" if path[-6:] != "AAAAAA" else "BBBBBB")
    brief = event_link(job_id, "approval", expires_in=timedelta(seconds=1), app=world.app)
    gone = event_link(uuid.uuid4(), "approval", tenant="acme", app=world.app)

    answers = {
        person.get(each).status_code for each in (altered, gone, "/public/events/x", "/public/events/%00")
    }
    assert answers == {404}
    wait_until(lambda: person.get(brief).status_code == 404)
    with pytest.raises(JobNotFound):
        event_link(uuid.uuid4(), "approval", app=world.app)
    with pytest.raises(UnsupportedOption, match="choices"):
        event_link(job_id, "approval", choices=("yes", "yes"), app=world.app)
    world.app.cancel_job(job_id)
    closed = person.get(path)
    assert "closed" in closed.text
    assert "form_token" not in closed.text


def test_without_a_key_there_are_no_links(world: World) -> None:
    former = world.app._settings
    world.app._settings = world.app.settings.model_copy(update={"secret_key": None})
    try:
        with pytest.raises(ConfigurationError, match="JOBBRIDGE_SECRET_KEY"):
            event_link(uuid.uuid4(), "approval", tenant="acme", app=world.app)
    finally:
        world.app._settings = former


def test_the_api_sends_to_its_own_tenants_jobs(world: World) -> None:
    job_id = asked(world)
    path = f"/api/v1/jobs/{job_id}/events"
    event = {
        "name": "approval",
        "payload": {"choice": "approve", "password": "hunter2"},
        "once": f"api-{job_id}",
    }
    ops, viewer = client_of(world, Role.OPERATOR, "acme"), client_of(world, Role.VIEWER, "acme")
    other = client_of(world, Role.OPERATOR, "other")

    assert viewer.get(path).json()["wait"]["name"] == "approval"
    assert [each.post(path, json=event).status_code for each in (viewer, other)] == [403, 404]
    assert other.post("/api/v1/events", json={**event, "job_id": job_id}).status_code == 404
    assert ops.post("/api/v1/events", json=event).status_code == 422
    assert world.row(job_id)["status"] == "waiting"

    assert ops.post(path, json=event).json() == {"outcome": "delivered"}

    assert world.wait_for_status(job_id, "completed")["result"]["choice"] == "approve"
    refused = ops.post("/api/v1/events", json={**event, "job_id": job_id})
    assert refused.status_code == 409
    told = viewer.get(path).json()
    assert told["wait"] is None
    assert [(each["name"], each["payload"]["choice"]) for each in told["events"]] == [("approval", "approve")]
    assert "hunter2" not in viewer.get(path).text
    assert told["events"][0]["sent_by"]
    assert [each[:2] for each in actions_on(world, job_id)][-2:] == [
        ("send event", "delivered"),
        ("send event", "refused"),
    ]


def test_a_jobs_page_tells_what_it_waits_for_and_sends_it(world: World) -> None:
    job_id = asked(world)
    ops, viewer = client_of(world, Role.OPERATOR, "acme"), client_of(world, Role.VIEWER, "acme")

    page = unescape(ops.get(f"/jobs/{job_id}", headers=HTML).text)
    assert "It waits for the event 'approval'" in page
    assert "Send approval" in page
    assert f"jobbridge events send approval --job {job_id}" in page
    assert "Send approval" not in unescape(viewer.get(f"/jobs/{job_id}", headers=HTML).text)
    bad = ops.post(f"/jobs/{job_id}/events", data={"name": "approval", "payload": "{"})
    assert bad.status_code == 422
    row = world.app.jobs.find(uuid.UUID(job_id))
    assert row is not None
    [reason] = [each for each in explain(world.app, row).reasons if each.code == "waits_for_event"]
    assert "until" in reason.what
    assert f"jobbridge events send approval --job {job_id}" in reason.hint
    assert check_waits(world.app)[0].is_good

    payload = json.dumps({"choice": "approve"})
    sent = ops.post(f"/jobs/{job_id}/events", data={"name": "approval", "payload": payload})

    assert sent.status_code == 303
    world.wait_for_status(job_id, "completed")
    page = unescape(ops.get(f"/jobs/{job_id}", headers=HTML).text)
    assert "wait for approval" in page
    assert "sent by" in page
    assert "Retry from here" in page


def test_a_job_that_sleeps_says_until_when(world: World) -> None:
    job_id = str(world.app.enqueue("parity.naps", {}, tenant="acme").job_id)
    world.wait_for_status(job_id, "scheduled")

    row = world.app.jobs.find(uuid.UUID(job_id))
    assert row is not None
    reasons = {each.code: each.what for each in explain(world.app, row).reasons}
    page = client_of(world, Role.VIEWER, "acme").get(f"/jobs/{job_id}", headers=HTML).text

    assert "It sleeps until" in reasons["sleeping"]
    assert "sleeping" in page
    world.app.cancel_job(job_id)


def test_the_commands_send_list_and_link(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(events_command, "load_app", lambda name: world.app)
    key = f"order-{uuid.uuid4()}"
    job_id = asked(world, key=key)

    def told(*arguments: str) -> tuple[int, str]:
        code = run(["events", *arguments])
        return code, capsys.readouterr().out

    code, waiting = told("list", "--waiting", "--job", job_id, "--json")
    assert (code, [each["name"] for each in json.loads(waiting)]) == (0, ["approval"])
    assert job_id in told("list", "--waiting", "--tenant", "acme")[1]
    assert told("link", "approval", "--job", job_id)[1].startswith("/public/events/")
    assert told("send", "approval", "--payload", "{}")[0] == 2
    send = (
        "send",
        "approval",
        "--key",
        key,
        "--tenant",
        "acme",
        "--once",
        key,
        "--payload",
        '{"choice": "approve"}',
    )
    assert "Delivered" in told(*send)[1]
    assert "Repeated" in told(*send)[1]

    assert world.wait_for_status(job_id, "completed")["result"]["choice"] == "approve"
    listed = json.loads(told("list", "--job", job_id, "--json")[1])
    assert [(each["name"], each["key"]) for each in listed] == [("approval", key)]
