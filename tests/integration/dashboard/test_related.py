"""A job's page leads to those it belongs to: who sent it, its chain and group, its children."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape
from uuid import UUID, uuid4

import pytest
from starlette.testclient import TestClient

from jobbridge import Celery
from jobbridge.app.fanout.parent_task import fan_out
from jobbridge.core.access import Role
from jobbridge.core.fanout import Child, FanOut
from jobbridge.core.keys import SYSTEM_TENANT, JobKey, TenantId
from jobbridge.dashboard.application import make_dashboard
from jobbridge.dashboard.views.related import SHOWN
from jobbridge.settings import load_settings
from jobbridge.store.access.tokens import AccessStore
from tests.job_events import EventsOf
from tests.parity.tasks import make_app

ACME = TenantId("acme")


@pytest.fixture
def app(database_url: str) -> Iterator[Celery]:
    app = make_app(settings=load_settings({"DATABASE_URL": database_url, "TEMPORAL_ADDRESS": "127.0.0.1:1"}))
    app.finalize()
    yield app
    app.close()


def shown_to(app: Celery, tenant: TenantId | None = None) -> TestClient:
    token, _ = AccessStore(app.database).create("somebody", Role.VIEWER, tenant=tenant)
    headers = {"accept": "text/html", "authorization": f"Bearer {token}"}
    return TestClient(make_dashboard(app), base_url="http://127.0.0.1", headers=headers)


def sent(app: Celery, *, tenant: TenantId = ACME, **relation: UUID | str) -> UUID:
    job = EventsOf(JobKey(tenant=tenant, job_id=uuid4()))
    app.recorder.record(job.submitted(type="shop.link", **relation))
    return job.key.job_id


def links_of(page: str, section: str) -> set[UUID]:
    found = re.search(rf'<section aria-labelledby="{section}">.*?</section>', page, re.DOTALL)
    return {UUID(text) for text in re.findall(r'href="[^"]*/jobs/([0-9a-f-]{36})', found[0] if found else "")}


def test_every_link_of_a_chain_leads_to_all_others(app: Celery) -> None:
    first = sent(app)
    second = sent(app, root_id=first, parent_id=first)
    third = sent(app, root_id=first, parent_id=second)
    sent(app)
    client = shown_to(app)

    for job_id in (first, second, third):
        page = client.get(f"/jobs/{job_id}").text
        assert links_of(page, "together") == {first, second, third} - {job_id}
    page = client.get(f"/jobs/{second}").text
    assert re.findall(r"<td>(sent this job|this job|sent by this job)</td>", page) == [
        "sent this job",
        "this job",
        "sent by this job",
    ]


def test_the_members_of_a_group_lead_to_each_other(app: Celery) -> None:
    members = {sent(app, group_id="group-1") for _ in range(3)}
    sent(app, group_id="group-2")
    one = members.pop()

    assert links_of(shown_to(app).get(f"/jobs/{one}").text, "together") == members


def test_a_job_alone_has_no_chain(app: Celery) -> None:
    job_id = uuid4()
    job = EventsOf(JobKey(tenant=ACME, job_id=job_id))
    app.recorder.record(job.submitted(root_id=job_id, parent_id=job_id))  # as retries had it written once

    page = shown_to(app).get(f"/jobs/{job_id}").text

    assert 'id="together"' not in page
    assert "Sent by" not in page


def test_a_chain_of_many_is_cut_and_says_so(app: Celery) -> None:
    first = sent(app)
    for _ in range(SHOWN + 2):
        sent(app, root_id=first, parent_id=first)

    assert f"The first {SHOWN} of them." in shown_to(app).get(f"/jobs/{first}").text


# -- fan-outs


def test_a_failed_child_says_why_and_a_child_of_another_tenant_leads_to_its_parent(app: Celery) -> None:
    parent, child = a_fan_out(app)
    client = shown_to(app)

    assert "ValueError: no address" in client.get(f"/jobs/{parent}").text
    [address] = re.findall(
        r'Sent by</dt><dd><a href="([^"]+)"', client.get(f"/jobs/{child}?tenant=acme").text
    )
    assert client.get(unescape(address)).status_code == 200
    assert str(parent) in address


def test_who_is_bound_to_a_tenant_is_not_told_of_a_parent_of_another(app: Celery) -> None:
    parent, child = a_fan_out(app)

    page = shown_to(app, ACME).get(f"/jobs/{child}").text

    assert str(child) in page
    assert str(parent) not in page


def a_fan_out(app: Celery) -> tuple[UUID, UUID]:
    """Have a parent of the system with a child of a tenant, which has failed."""
    items = [Child(data={"args": [1, 2]}, tenant=ACME, key="one")]
    handle = fan_out(app, FanOut(task="parity.add", items=items))
    parent = JobKey(tenant=SYSTEM_TENANT, job_id=UUID(str(handle.job_id)))
    [member] = app.fan_outs.members(parent)
    job = EventsOf(member.key)
    for event in (
        job.submitted(root_id=parent.job_id, parent_id=parent.job_id),
        job.started(),
        job.failed(1, error="ValueError: no address"),
    ):
        app.recorder.record(event)
    return parent.job_id, member.key.job_id
