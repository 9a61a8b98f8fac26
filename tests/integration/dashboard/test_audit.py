"""What is put on record: each action, who signs in and out, and who tries what they may not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from starlette.testclient import TestClient

from jobbridge import Celery
from jobbridge.core.access import Role
from jobbridge.core.keys import JobKey, TenantId
from jobbridge.core.schedules.policies import schedule_id_for
from jobbridge.dashboard.access.request_context import Rule
from jobbridge.dashboard.application import RULES, make_dashboard
from jobbridge.dev.postgres import PostgresServer
from jobbridge.recording import JobRecorder
from jobbridge.settings import load_settings
from jobbridge.store.access.tokens import AccessStore, ActionRow
from jobbridge.store.batches import rows as batches
from jobbridge.store.batches.progress import BATCH
from tests.integration.dashboard.test_pages import BODIES, BROWSER, address, form_token
from tests.job_events import EventsOf
from tests.parity.tasks import make_app

ACME = TenantId("acme")
CHANGING = [rule for rule in RULES if rule.changes and rule.needs is not None]


@pytest.fixture(scope="module")
def app(postgres: PostgresServer, migrated_template: str) -> Iterator[Celery]:
    url = postgres.create_database(f"test_audit_{uuid4().hex}", template=migrated_template)
    app = make_app(settings=load_settings({"DATABASE_URL": url, "TEMPORAL_ADDRESS": "127.0.0.1:1"}))
    app.finalize()
    yield app
    app.close()


@pytest.fixture(scope="module")
def access(app: Celery) -> AccessStore:
    return AccessStore(app.database)


@pytest.fixture
def client(app: Celery) -> TestClient:
    return TestClient(make_dashboard(app), base_url="https://jobs.example", follow_redirects=False)


def bearer(access: AccessStore, role: Role = Role.VIEWER, tenant: TenantId | None = None) -> dict[str, str]:
    token, _ = access.create(str(uuid4()), role, tenant=tenant)
    return {"authorization": f"Bearer {token}"}


def made(app: Celery, tenant: TenantId = ACME, **more: Any) -> EventsOf:
    job = EventsOf(JobKey(tenant=tenant, job_id=uuid4()))
    JobRecorder(app.database).record(job.submitted(**more))
    return job


def newest(access: AccessStore) -> ActionRow:
    return access.actions(limit=1)[0]


def test_who_tries_what_they_may_not_is_on_record(
    app: Celery, client: TestClient, access: AccessStore
) -> None:
    for rule in CHANGING:
        assert rule.needs is not None
        for role in (role for role in Role if not role.includes(rule.needs)):
            token, row = access.create(str(uuid4()), role, tenant=None if rule.is_global else ACME)
            for method in rule.methods:
                client.request(method, address(rule), headers={"authorization": f"Bearer {token}"})
                told = newest(access)
                assert (told.actor, told.outcome) == (row.name, "refused"), rule.name
                assert (told.tenant, told.reason) == (row.tenant, f"That needs the role {rule.needs.value}.")


def test_a_refusal_is_not_put_on_record_without_end(
    app: Celery, client: TestClient, access: AccessStore
) -> None:
    headers, before = bearer(access), len(access.actions(limit=1000))

    for _ in range(40):
        assert client.post(f"/jobs/{uuid4()}/cancel", headers=headers).status_code == 403

    assert len(access.actions(limit=1000)) == before + 30


def test_signing_in_and_out_is_on_record(app: Celery, client: TestClient, access: AccessStore) -> None:
    token, row = access.create(str(uuid4()), Role.VIEWER, tenant=ACME)

    client.post("/sign-in", data={"token": token})
    signed_in = newest(access)
    page = client.get("/", headers=BROWSER).text
    client.post("/sign-out", data={"form_token": form_token(page)})

    assert (signed_in.actor, signed_in.action, signed_in.tenant) == (row.name, "sign in", ACME)
    assert (newest(access).actor, newest(access).action) == (row.name, "sign out")
    assert token not in json.dumps([str(action) for action in access.actions()])


@pytest.mark.parametrize("rule", CHANGING, ids=lambda rule: rule.name)
def test_each_action_is_on_record(app: Celery, client: TestClient, access: AccessStore, rule: Rule) -> None:
    batch_id = uuid4()
    with app.database.transaction() as connection:
        batches.open_batch(connection, batch_id, ACME, "import", callbacks=None, callbacks_type=None)
    job = made(app, type="parity.total", metadata={"data": {"args": [[1]]}, BATCH: str(batch_id)})
    JobRecorder(app.database).record(job.started())
    JobRecorder(app.database).record(job.failed(1))
    app.schedules.create("parity.total", "0 2 * * *", [1], name="nightly", tenant=ACME)
    path = rule.path.format(
        job_id=job.key.job_id, schedule_id=schedule_id_for(ACME, "nightly"), queue="celery", batch_id=batch_id
    )
    form = {
        "queue": "celery", "tenant": "t", "name": str(uuid4()), "role": "viewer", "action": "retry",
        "confirmed": "yes", "keys": f"{job.key.job_id} acme", "data": "{}", "status": "failed", "word": "clear",
        "group": "0123456789",
        "before": "2020-01-01T00:00:00+00:00", "start": "2026-01-01T00:00", "end": "2026-01-02T00:00",
    }  # fmt: skip
    token, row = access.create(str(uuid4()), Role.ADMIN)

    for method in rule.methods:
        sent: dict[str, Any] = {"json": BODIES.get(rule.name)} if rule.is_api else {"data": form}
        client.request(method, path, headers={"authorization": f"Bearer {token}"}, **sent)

    assert newest(access).actor == row.name
