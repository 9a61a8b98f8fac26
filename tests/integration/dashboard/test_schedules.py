"""The pages of schedules: what is next, what became of fires, and what is done by hand."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from starlette.testclient import TestClient

from jobbridge import Celery
from jobbridge.core.access import Role
from jobbridge.core.keys import TenantId
from jobbridge.dashboard.application import make_dashboard
from jobbridge.dashboard.pages import schedules
from jobbridge.settings import load_settings
from jobbridge.store.access.tokens import AccessStore
from tests.parity.tasks import make_app

ACME, OTHER = TenantId("acme"), TenantId("other")

pytestmark = pytest.mark.filterwarnings("ignore:.*nobody runs it")


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
    made = TestClient(make_dashboard(app), base_url="https://jobs.example", follow_redirects=True)
    made.headers |= {"authorization": f"Bearer {token}", "accept": "text/html"}
    return made


def create(app: Celery, name: str = "nightly", *, tenant: TenantId = ACME, **more: Any) -> UUID:
    handle = app.schedules.create(
        "parity.total", more.pop("when", "0 2 * * *"), [1], name=name, tenant=tenant, **more
    )
    return handle.schedule_id


def test_next_fires_are_told_in_the_zone_of_the_schedule_and_in_utc(client: TestClient, app: Celery) -> None:
    page = client.get(f"/schedules/{create(app, zone='America/New_York')}").text

    found = re.findall(
        r"<td>(\w{3} \d\d \w{3} \d{4} 02:00:00 -0[45]00)</td>.*?<td>(\d\d \w{3} 0[67]:00:00)</td>", page
    )
    assert len(found) == 5


def test_a_schedule_is_paused_with_a_note_and_resumed(
    client: TestClient, app: Celery, access: AccessStore
) -> None:
    schedule_id = create(app)

    page = client.post(f"/schedules/{schedule_id}/pause", data={"note": "until the audit"}).text
    assert "It does not fire while it is paused: until the audit." in page
    assert "until the audit" in client.get("/schedules?state=paused").text
    assert app.schedules.find(schedule_id).paused
    assert "It does not fire while it is paused" not in client.post(f"/schedules/{schedule_id}/resume").text
    assert not app.schedules.find(schedule_id).paused
    noted = [(action.action, action.subject, action.reason) for action in access.actions()]
    assert noted == [("resume schedule", "nightly", None), ("pause schedule", "nightly", "until the audit")]


def test_a_job_is_made_now_and_is_in_the_history(client: TestClient, app: Celery) -> None:
    schedule_id = create(app)

    answer = client.post(f"/schedules/{schedule_id}/run")

    job_id = answer.url.path.rpartition("/")[2]
    row = app.jobs.find(UUID(job_id))
    assert row is not None
    assert (row.type, row.tenant) == ("parity.total", ACME)
    history = client.get(f"/schedules/{schedule_id}").text
    assert f"/jobs/{job_id}" in history
    assert "(manual)" in history


def test_what_was_missed_is_made_up_for_after_a_look_at_how_much(client: TestClient, app: Celery) -> None:
    schedule_id = create(app, when="0 * * * *", zone="Europe/Berlin")
    times = {"start": "2026-03-02T08:00", "end": "2026-03-02T10:30"}

    look = client.post(f"/schedules/{schedule_id}/backfill", data=times).text
    assert "3 fires" in look
    assert "It has not fired yet" in look, "it is only a look"
    done = client.post(f"/schedules/{schedule_id}/backfill", data=times | {"confirmed": "yes"}).text
    assert "3 jobs were made." in done
    again = client.post(f"/schedules/{schedule_id}/backfill", data=times | {"confirmed": "yes"}).text
    assert "0 jobs were made." in again

    fires = app.schedules.history(schedule_id)
    first = datetime(2026, 3, 2, 7, tzinfo=UTC)
    assert sorted(fire.fire_at for fire in fires) == [first + timedelta(hours=hour) for hour in range(3)]


@pytest.mark.parametrize(
    ("times", "status", "told"),
    [
        ({"start": "yesterday", "end": "2026-03-02T10:30"}, 400, "is no instant"),
        ({"start": "2026-03-02T10:30", "end": "2026-03-02T08:00"}, 409, "has no fire within that time"),
        ({"start": "2020-01-01T00:00", "end": "2026-03-02T08:00"}, 409, "more than 1,000 fires"),
        ({}, 400, "is no instant"),
    ],
)
def test_a_time_that_makes_no_sense_is_refused(
    client: TestClient, app: Celery, times: dict[str, str], status: int, told: str
) -> None:
    schedule_id = create(app, when="0 * * * *")
    answer = client.post(f"/schedules/{schedule_id}/backfill", data=times)
    assert (answer.status_code, told in answer.text) == (status, True), answer.text


def test_schedules_are_paged_and_found_by_name(
    client: TestClient, app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedules, "_PAGE", 2)
    for tenant in (ACME, OTHER):
        for name in ("b", "a", "c d"):
            create(app, name, tenant=tenant)
    seen, address = [], "/schedules"
    while address:
        page = client.get(address).text
        seen += re.findall(r'<th scope="row"><a [^>]*>([^<]+)</a>', page)
        following = re.search(r'rel="next" href="([^"]+)"', page)
        address = following[1].replace("&amp;", "&") if following else ""

    assert seen == ["a", "b", "c d"] * 2
    assert (
        re.findall(r'<th scope="row"><a [^>]*>([^<]+)</a>', client.get("/schedules?text=C+D").text)
        == ["c d"] * 2
    )


def test_schedules_of_a_tenant_whose_name_has_blanks_are_paged(
    client: TestClient, app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedules, "_PAGE", 1)
    for name in ("a", "b"):
        create(app, name, tenant=TenantId("my shop"))

    following = re.search(r'rel="next" href="([^"]+)"', client.get("/schedules").text)
    assert following is not None
    page = client.get(following[1].replace("&amp;", "&")).text

    assert re.findall(r'<th scope="row"><a [^>]*>([^<]+)</a>', page) == ["b"]
    assert 'rel="next"' not in page


def test_a_schedule_that_cannot_be_read_is_shown_with_what_is_wrong(client: TestClient, app: Celery) -> None:
    schedule_id = create(app)
    app.database.run(lambda own: own.execute("UPDATE job_schedules SET spec = 'whenever'"))

    assert "cannot fire" in client.get("/schedules").text
    assert "cannot fire" in client.get(f"/schedules/{schedule_id}").text
