"""What was given up, and batches, by the API."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID, uuid4

import pytest
from starlette.testclient import TestClient

import jobbridge
from jobbridge import Celery
from jobbridge.app.dead.letters import DeadFilter, groups
from jobbridge.core.access import Role
from jobbridge.core.keys import JobKey, TenantId
from jobbridge.dashboard.application import make_dashboard
from jobbridge.settings import load_settings
from jobbridge.store.access.tokens import AccessStore
from tests.job_events import EventsOf
from tests.parity.tasks import make_app

ACME, ZETA = TenantId("acme"), TenantId("zeta")


@pytest.fixture
def app(database_url: str) -> Iterator[Celery]:
    app = make_app(settings=load_settings({"DATABASE_URL": database_url}), include=["tests.parity.tasks"])
    app.loader.import_default_modules()
    yield app
    app.close()


def client_of(app: Celery, role: Role = Role.OPERATOR, tenant: TenantId | None = None) -> TestClient:
    token, _ = AccessStore(app.database).create(f"somebody {uuid4()}", role, tenant=tenant)
    headers = {"authorization": f"Bearer {token}"}
    return TestClient(make_dashboard(app), base_url="http://127.0.0.1", headers=headers)


def dead(app: Celery, error: str, tenant: TenantId = ACME) -> UUID:
    job = EventsOf(JobKey(tenant=tenant, job_id=uuid4()))
    metadata = {"data": {"args": [1, 2], "kwargs": {}}}
    for event in (
        job.submitted(type="parity.add", metadata=metadata),
        job.started(),
        job.failed(1, error=error),
    ):
        app.recorder.record(event)
    return job.key.job_id


def test_dead_letters_are_grouped_listed_and_sent_again(app: Celery) -> None:
    ids = [dead(app, f"OSError: disk {number} is full") for number in range(3)]
    dead(app, "ValueError: no", ZETA)
    client, acme = client_of(app), client_of(app, tenant=ACME)

    groups = client.get("/api/v1/dead").json()
    assert [(each["type"], each["letters"]) for each in groups["groups"]] == [
        ("parity.add", 3),
        ("parity.add", 1),
    ]
    assert (groups["looked_at"], groups["is_cut"]) == (4, False)
    [group] = acme.get("/api/v1/dead").json()["groups"]
    assert group["error"] == "OSError: disk 2 is full"
    listed = client.get("/api/v1/dead/letters", params={"group": group["group"], "limit": 2}).json()
    assert ([each["id"] for each in listed["letters"]], listed["is_cut"]) == (
        [str(each) for each in ids[:2]],
        True,
    )
    assert client_of(app, Role.VIEWER).post("/api/v1/dead/retry", json={}).status_code == 403

    done = acme.post("/api/v1/dead/retry", json={"type": "parity.add", "rate": 100}).json()

    assert done == {"sent": 3, "passed": 0, "refused": {}, "is_cut": False}
    assert {app.jobs.find(each).status for each in ids} == {"queued"}  # type: ignore[union-attr]
    assert len(client.get("/api/v1/dead").json()["groups"]) == 1
    with app.database.connection() as connection:
        told = connection.execute(
            "SELECT action, details FROM job_audit WHERE action = 'retry dead'"
        ).fetchall()
    assert told == [("retry dead", {"sent": 3, "passed": 0, "refused": 0})]


def test_batches_are_listed_shown_and_cancelled(app: Celery) -> None:
    with jobbridge.batch("import", tenant=ACME, app=app) as batch:
        app.send_task("parity.add", (1, 2), tenant=ACME)
    client = client_of(app)

    [listed] = client.get("/api/v1/batches", params={"state": "sealed"}).json()["batches"]
    assert (listed["id"], listed["name"], listed["total"], listed["open"]) == (batch.id, "import", 1, 1)
    assert client.get(f"/api/v1/batches/{batch.id}").json() == listed
    assert client_of(app, tenant=ACME).get(f"/api/v1/batches/{batch.id}").status_code == 200
    assert client_of(app, tenant=ZETA).get(f"/api/v1/batches/{batch.id}").status_code == 404
    assert client_of(app, tenant=ZETA).get("/api/v1/batches").json() == {"batches": []}
    assert client.get("/api/v1/batches/nonsense").status_code == 422

    cancelled = client.post(f"/api/v1/batches/{batch.id}/cancel", json={"reason": "wrong"}).json()
    assert (cancelled["cancelled"], cancelled["batch"]["state"]) == (True, "cancelled")
    assert client.post(f"/api/v1/batches/{batch.id}/cancel").json()["cancelled"] is False


def test_the_page_shows_the_groups_and_sends_one_again(app: Celery) -> None:
    first = dead(app, "OSError: disk 1 is full")
    other = dead(app, "ValueError: no")
    client = client_of(app)
    client.headers["accept"] = "text/html"
    page = client.get("/dead").text
    assert "OSError: disk 1 is full" in page
    group = next(each for each in groups(app, DeadFilter()).groups if each.error.startswith("OSError"))
    assert f'name="group" value="{group.group}"' in page
    assert "Retry" not in client_of(app, Role.VIEWER).get("/dead", headers={"accept": "text/html"}).text

    sent = client.post("/dead/retry", data={"group": group.group, "rate": "50/s"}, follow_redirects=False)

    assert sent.status_code == 303
    assert [app.jobs.find(each).status for each in (first, other)] == ["queued", "failed"]  # type: ignore[union-attr]
    assert client.post("/dead/retry", data={"group": "all"}).status_code == 400
    assert client.post("/dead/retry", data={"group": group.group, "rate": "0"}).status_code == 400
