"""A whole on the job's page: one drawing of a chain, a group, a chord, their children; and what can be done to all."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from starlette.testclient import TestClient

from jobbridge import Celery
from jobbridge.cli import jobs
from jobbridge.cli.root import run
from jobbridge.core.access import Role
from jobbridge.core.keys import JobKey, TenantId
from jobbridge.dashboard.application import make_dashboard
from jobbridge.dashboard.views.graph import ALIKE, MOST
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


def shown_to(app: Celery, role: Role = Role.VIEWER, tenant: TenantId | None = None) -> TestClient:
    token, _ = AccessStore(app.database).create(f"somebody {uuid4()}", role, tenant=tenant)
    headers = {"accept": "text/html", "authorization": f"Bearer {token}"}
    return TestClient(make_dashboard(app), base_url="http://127.0.0.1", headers=headers)


def sent(app: Celery, *ends: str, type: str = "shop.link", tenant: TenantId = ACME, **more: Any) -> UUID:
    """Make a job; `started`, and how it ended."""
    job = EventsOf(JobKey(tenant=tenant, job_id=uuid4()))
    app.recorder.record(job.submitted(type=type, **more))
    if ends:
        app.recorder.record(job.started())
    if "completed" in ends:
        app.recorder.record(job.completed(1))
    if "failed" in ends:
        app.recorder.record(job.failed(1))
    return job.key.job_id


def drawn(page: str) -> tuple[list[tuple[str | None, str, str, str]], int]:
    """Give the nodes as job id, classes, label and detail, and the number of edges."""
    found = re.search(r'<svg class="graph".*?</svg>', page, re.DOTALL)
    if found is None:
        return [], 0
    nodes = re.findall(
        r'(?:<a href="[^"]*/jobs/([0-9a-f-]{36})[^>]*>)?<g class="node ([^"]*)">'
        r"<title>[^<]*</title><rect[^>]*/><text[^>]*>([^<]*)</text><text[^>]*>([^<]*)</text>",
        found[0],
    )
    return [(job_id or None, *rest) for job_id, *rest in nodes], found[0].count("<path")


def test_a_chain_is_drawn_on_the_page_of_each_link(app: Celery) -> None:
    first = sent(app, "completed")
    second = sent(app, "started", root_id=first, parent_id=first)
    third = sent(app, root_id=first, parent_id=second)
    client = shown_to(app)

    for here in (first, second, third):
        nodes, edges = drawn(client.get(f"/jobs/{here}").text)
        assert [(UUID(str(job_id)), classes) for job_id, classes, _, _ in nodes] == [
            (first, "completed" + (" here" if here == first else "")),
            (second, "processing" + (" here" if here == second else "")),
            (third, "queued" + (" here" if here == third else "")),
        ]
        assert edges == 2
    assert re.fullmatch(r"completed, \d.*", nodes[0][3])


def test_a_chord_has_its_parts_side_by_side_and_its_body_behind_them(app: Celery) -> None:
    root = sent(app, "completed", type="shop.begin")
    parts = [
        sent(app, "completed", root_id=root, parent_id=root, group_id="g1", chord_id="g1", chord_index=number)
        for number in range(3)
    ]
    body = sent(app, type="shop.body", root_id=root, parent_id=parts[-1])

    nodes, edges = drawn(shown_to(app).get(f"/jobs/{parts[0]}").text)

    assert {job_id for job_id, *_ in nodes} == {str(each) for each in (root, *parts, body)}
    assert edges == 3 + 3


def test_many_alike_are_one_node_with_their_numbers(app: Celery) -> None:
    root = sent(app, "completed", type="shop.begin")
    members = [sent(app, "completed", root_id=root, parent_id=root, group_id="g1") for _ in range(ALIKE)]
    wrong = sent(app, "failed", root_id=root, parent_id=root, group_id="g1")
    for each in (*members, wrong):
        sent(app, type="shop.after", root_id=root, parent_id=each)

    nodes, edges = drawn(shown_to(app).get(f"/jobs/{members[0]}").text)

    assert [(label, detail) for _, _, label, detail in nodes] == [
        ("shop.begin", nodes[0][3]),
        ("9 \u00d7 shop.link", "8 completed, 1 failed"),
        ("9 \u00d7 shop.after", "9 queued"),
    ]
    assert nodes[1][:2] == (str(wrong), "failed here")
    assert edges == 2


def test_no_more_are_drawn_than_can_be_looked_at(app: Celery) -> None:
    root = sent(app, "completed")
    for number in range(MOST + 5):
        last = sent(app, type=f"shop.{number}", root_id=root, parent_id=root)

    page = shown_to(app).get(f"/jobs/{last}").text

    nodes, _ = drawn(page)
    assert len(nodes) == MOST
    assert str(last) in {job_id for job_id, *_ in nodes}
    assert "The first of them are drawn." in page


def test_a_job_alone_is_not_drawn_and_others_of_another_tenant_are_not_told(app: Celery) -> None:
    root = sent(app)
    sent(app, root_id=root, parent_id=root, tenant=TenantId("zeta"))

    assert drawn(shown_to(app).get(f"/jobs/{root}").text) == ([], 0)


def test_the_whole_is_cancelled_from_any_of_its_jobs_and_each_is_on_record(app: Celery) -> None:
    first = sent(app, "completed")
    members = [sent(app, root_id=first, parent_id=first, group_id="g1") for _ in range(3)]
    other = sent(app)
    client = shown_to(app, Role.OPERATOR)

    answer = client.post(f"/jobs/{members[1]}/whole/cancel", data={"reason": "wrong"}, follow_redirects=False)

    assert answer.status_code == 303
    rows = app.jobs.some(ACME, [first, *members, other])
    assert {rows[each].status for each in members} == {"cancelled"}
    assert rows[first].status == "completed"
    assert rows[other].status == "queued"
    with app.database.connection() as connection:
        told = connection.execute("SELECT action, count(*) FROM job_audit GROUP BY action").fetchall()
    assert dict(told) | {"cancel": 3, "cancel whole": 1} == dict(told)


def test_what_did_not_complete_of_the_whole_is_run_again(app: Celery) -> None:
    metadata = {"data": {"args": [1, 2], "kwargs": {}}}
    first = sent(app, "completed", type="parity.add")
    failed = [
        sent(app, "failed", type="parity.add", root_id=first, parent_id=first, metadata=metadata)
        for _ in range(2)
    ]
    client = shown_to(app, Role.OPERATOR)
    assert "Retry all that did not complete" in client.get(f"/jobs/{first}").text
    assert "Retry all that did not complete" not in shown_to(app).get(f"/jobs/{first}").text
    assert shown_to(app).post(f"/jobs/{first}/whole/retry").status_code == 403

    client.post(f"/jobs/{first}/whole/retry", follow_redirects=False)

    rows = app.jobs.some(ACME, failed)
    assert {row.status for row in rows.values()} == {"queued"}


def test_the_stream_of_a_whole_tells_of_its_jobs(app: Celery) -> None:
    first = sent(app)
    page = shown_to(app).get(f"/jobs/{first}").text
    assert "whole=yes" not in page
    sent(app, root_id=first, parent_id=first)
    page = shown_to(app).get(f"/jobs/{first}").text
    assert f"job_id={first}&amp;whole=yes" in page


def test_the_command_cancels_the_whole(
    app: Celery, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(jobs, "load_app", lambda name: app)
    first = sent(app, "completed")
    members = [sent(app, root_id=first, parent_id=first) for _ in range(2)]

    assert run(["jobs", "cancel", str(first), "--whole", "--json"]) == 0

    assert json.loads(capsys.readouterr().out)["cancelled"] == 2
    assert {row.status for row in app.jobs.some(ACME, members).values()} == {"cancelled"}
