"""The pages of jobs: columns, files for spreadsheets, many jobs at once, other data, and what a job made."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from html import unescape
from typing import Any
from uuid import UUID, uuid4

import pytest
from starlette.testclient import TestClient

from jobbridge import Celery
from jobbridge.app.results.artifacts import Artifact
from jobbridge.core.access import Role
from jobbridge.core.keys import Engine, JobKey, TenantId
from jobbridge.core.status import JobStatus
from jobbridge.dashboard.actions import bulk
from jobbridge.dashboard.application import make_dashboard
from jobbridge.settings import load_settings
from jobbridge.store.access.tokens import AccessStore
from jobbridge.store.jobs.rows import JobRow
from tests.job_events import EventsOf
from tests.parity.tasks import make_app

ACME, OTHER = TenantId("acme"), TenantId("other")


@pytest.fixture
def app(database_url: str) -> Iterator[Celery]:
    app = make_app(
        settings=load_settings(
            {
                "DATABASE_URL": database_url,
                "TEMPORAL_ADDRESS": "127.0.0.1:1",
                "TEMPORAL_UI_URL": "https://temporal.example/",
            }
        )
    )
    app.finalize()
    yield app
    app.close()


@pytest.fixture
def access(app: Celery) -> AccessStore:
    return AccessStore(app.database)


@pytest.fixture
def client(app: Celery, access: AccessStore) -> TestClient:
    token, _ = access.create("ops", Role.OPERATOR)
    made = TestClient(make_dashboard(app), base_url="https://jobs.example", follow_redirects=False)
    made.headers |= {"authorization": f"Bearer {token}", "accept": "text/html"}
    return made


def send(app: Celery, number: int, *, tenant: TenantId = ACME) -> list[JobKey]:
    sent = [app.tasks["parity.total"].apply_async(args=[[n]], tenant=tenant) for n in range(number)]
    return [JobKey(tenant=tenant, job_id=UUID(result.id)) for result in sent]


def failed(
    app: Celery, *, tenant: TenantId = ACME, error: str = "ConnectionError: no route", **more: object
) -> JobKey:
    job = EventsOf(JobKey(tenant=tenant, job_id=uuid4()))
    told: dict[str, Any] = {
        "type": "parity.total",
        "metadata": {"data": {"args": [[1, 2]], "kwargs": {}}},
    } | more
    for event in (job.submitted(**told), job.started(), job.failed(1, error=error)):
        app.recorder.record(event)
    return job.key


def status_of(app: Celery, key: JobKey) -> JobStatus:
    row = app.jobs.get(key)
    assert row is not None
    return row.status


def picked(*keys: JobKey) -> list[str]:
    return [f"{key.job_id} {key.tenant}" for key in keys]


def hidden(page: str, name: str) -> str:
    found = re.search(rf'<textarea name="{name}" hidden>([^<]*)<', page)
    assert found is not None, page
    return unescape(found[1])


# -- the list


def test_somebody_chooses_columns_and_the_browser_remembers(client: TestClient, app: Celery) -> None:
    failed(app)
    chosen = client.get("/jobs?type=parity.total&choose=these&column=priority&column=ended")

    assert (chosen.status_code, chosen.headers["location"]) == (303, "/jobs?type=parity.total")
    page = client.get("/jobs", headers={"cookie": chosen.headers["set-cookie"].partition(";")[0]}).text
    titles = re.findall(r'<th scope="col"[^>]*>(\w[\w ]*)</th>', page)
    assert titles == ["Job", "Status", "Ended", "Priority"]


def test_a_filter_is_saved_under_a_name_and_removed(client: TestClient, app: Celery) -> None:
    name = "<b>Überfällig</b>"

    def saved_on(page: str) -> list[tuple[str, str]]:
        found = re.search(r'aria-label="Saved filters">.*?</nav>', page, re.DOTALL)
        links = re.findall(r'<a href="([^"]+)"[^>]*>([^<]*)</a>', found[0]) if found else []
        return [(unescape(address), unescape(text)) for address, text in links]

    assert "Save this filter as …" not in client.get("/jobs").text
    assert "Save this filter as …" in client.get("/jobs?status=failed").text
    kept = client.get(
        "/jobs", params={"status": ["failed", "expired"], "type": 'a&"b', "limit": "10", "save": name}
    )
    assert (kept.status_code, kept.headers["location"]) == (
        303,
        "/jobs?status=failed&status=expired&type=a%26%22b",
    )
    assert "HttpOnly" in kept.headers["set-cookie"]
    page = client.get("/jobs").text
    assert saved_on(page) == [("/jobs?status=failed&status=expired&type=a%26%22b", name)]
    assert name not in page

    client.get("/jobs", params={"queue": "mail", "save": name})
    client.get("/jobs", params={"queue": "mail", "save": "Mail"})
    assert saved_on(client.get("/jobs").text) == [("/jobs?queue=mail", name), ("/jobs?queue=mail", "Mail")]
    assert client.get("/jobs", params={"forget": name}).headers["location"] == "/jobs"
    assert saved_on(client.get("/jobs").text) == [("/jobs?queue=mail", "Mail")]
    client.get("/jobs?forget=Mail")
    assert saved_on(client.get("/jobs").text) == []
    assert "jobbridge_filters" not in client.cookies


def test_a_saved_filter_that_does_not_fit_is_refused_and_nothing_is_lost(
    client: TestClient, app: Celery
) -> None:
    for name, query in (
        ("", "status=failed"),
        ("x" * 61, "status=failed"),
        ("a\u202eb", "status=failed"),
        ("x", ""),
    ):
        refused = client.get(
            f"/jobs?{query}", params={"save": name, **dict([query.split("=")] if query else [])}
        )
        assert (refused.status_code, "set-cookie" in refused.headers) == (422, False), name
    long = client.get("/jobs", params={"text": "é" * 2000, "save": "long"})
    assert (long.status_code, "more than 4 kB" in long.text) == (422, True)
    for number in range(10):
        assert client.get(f"/jobs?status=failed&save=f{number}").status_code == 303
    eleventh = client.get("/jobs?status=failed&save=f10")
    assert (eleventh.status_code, "10 saved filters already" in eleventh.text) == (422, True)
    assert client.get("/jobs?status=expired&save=f9").status_code == 303, "it takes the place of another one"
    assert client.get("/jobs?forget=f9", headers={"sec-fetch-site": "cross-site"}).status_code == 403
    assert client.get("/jobs").text.count('name="forget"') == 10
    client.cookies.clear()
    for cookie in (
        "x",
        "W10",
        "é",
        "bnVsbA",
        "WzFd",
        "W1tbXSwxLFsxXV1d",
        "W1siXHVkODAwIiwiIl1d",
    ):
        odd = {"cookie": f"jobbridge_filters={cookie}".encode()}
        assert client.get("/jobs", headers=odd).status_code == 200, cookie


def test_a_saved_filter_is_not_shown_to_somebody_of_another_tenant(
    client: TestClient, app: Celery, access: AccessStore
) -> None:
    client.get("/jobs?tenant=other&save=Theirs")
    token, _ = access.create("acme-support", Role.VIEWER, tenant=ACME)

    page = client.get("/jobs?status=failed", headers={"authorization": f"Bearer {token}"}).text

    assert "Theirs" not in page
    assert "Theirs" in client.get("/jobs").text


def test_jobs_are_found_by_the_time_they_were_made_and_by_ids(client: TestClient, app: Celery) -> None:
    key = failed(app)
    assert str(key.job_id) in client.get("/jobs?from=2026-01-01T00:00").text
    assert str(key.job_id) not in client.get("/jobs?to=2026-01-01T00:00").text
    assert str(key.job_id) in client.get(f"/jobs?text={str(key.job_id)[:13]}").text
    assert client.get("/jobs?from=yesterday").status_code == 400
    assert client.get(f"/jobs?text={key.job_id}").headers["location"] == f"/jobs/{key.job_id}"


def test_a_file_for_spreadsheets_has_all_that_match_and_no_formula(client: TestClient, app: Celery) -> None:
    keys = {str(failed(app, error="=HYPERLINK(1)").job_id) for _ in range(3)}
    failed(app, tenant=OTHER)

    answer = client.get(f"/jobs.csv?tenant={ACME}&status=failed")

    assert "attachment" in answer.headers["content-disposition"]
    rows = list(csv.DictReader(answer.text.splitlines()))
    assert {row["job_id"] for row in rows} == keys
    assert {row["error"] for row in rows} == {"'=HYPERLINK(1)"}


def test_a_file_is_written_page_by_page(
    client: TestClient, app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobbridge.dashboard.views.export._PAGE", 2)
    keys = [str(failed(app).job_id) for _ in range(5)]

    rows = list(csv.DictReader(client.get("/jobs.csv").text.splitlines()))

    assert [row["job_id"] for row in rows] == keys[::-1]


def test_the_same_file_as_json_has_whole_values_of_one_tenant_and_no_secret(
    app: Celery, client: TestClient, access: AccessStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobbridge.dashboard.views.export._PAGE", 2)
    keys = [str(failed(app, error='=1 "é" password=hunter2\nmore', priority=7).job_id) for _ in range(5)]
    failed(app, tenant=OTHER)
    token, _ = access.create("acme-support", Role.VIEWER, tenant=ACME)
    bound = {"authorization": f"Bearer {token}"}
    [path] = re.findall(r'href="(/jobs\.json\?[^"]+)"', client.get(f"/jobs?status=failed&tenant={ACME}").text)

    mine, all_of_them = client.get("/jobs.json", headers=bound), client.get(unescape(path))

    assert "attachment" in mine.headers["content-disposition"]
    assert mine.headers["content-type"] == "application/json"
    assert mine.json()["is_cut"] is False
    jobs = mine.json()["jobs"]
    assert (
        [job["job_id"] for job in jobs] == keys[::-1] == [job["job_id"] for job in all_of_them.json()["jobs"]]
    )
    assert {job["error"] for job in jobs} == {'=1 "é" password=••••••'}
    assert jobs[0]["priority"] == 7
    assert jobs[0]["run_time"] >= 0
    assert jobs[0]["created"].endswith("Z")
    assert jobs[0]["due"] is None
    assert "tenant" not in jobs[0], "who is bound to one sees the columns that they see on the page"
    assert all_of_them.json()["jobs"][0]["tenant"] == ACME
    monkeypatch.setattr("jobbridge.dashboard.views.export.MOST", 2)
    assert client.get("/jobs.json").json()["is_cut"] is True
    assert [action.details["format"] for action in access.actions()] == ["json"] * 3


def test_a_tenant_is_a_column_where_there_are_several_and_its_name_is_short(
    client: TestClient, app: Celery
) -> None:
    whose, name = TenantId(str(uuid4())), "a-tenant-with-a-name-that-is-much-longer-than-eight"

    def titles() -> list[str]:
        return re.findall(r'<th scope="col"[^>]*>(\w[\w ]*)</th>', client.get("/jobs").text)

    assert "Tenant" not in titles(), "there are no jobs"
    key = failed(app, tenant=whose)
    assert "Tenant" not in titles(), "all jobs are of one"
    chosen = client.get("/jobs?choose=these&column=tenant").headers["set-cookie"]
    failed(app, tenant=TenantId(name))

    assert "Tenant" in titles()
    page = client.get("/jobs", headers={"cookie": chosen.partition(";")[0]}).text
    cells = re.findall(r'<span class="tenant-name" title="([^"]+)">([^<]+)</span>', page)
    assert cells == [(name, name), (whose, str(whose)[:8])]
    for path in ("/jobs.csv", "/jobs.json"):
        assert str(whose) in client.get(f"{path}?text={key.job_id}").text
    look = client.post("/jobs/bulk", data={"action": "retry", "job": picked(key)}).text
    assert f'title="{whose}">{str(whose)[:8]}</span>' in look


# -- many at once


def test_many_are_cancelled_after_a_look_at_how_many(
    client: TestClient, app: Celery, access: AccessStore
) -> None:
    first, second = send(app, 2)
    ended = failed(app)
    look = client.post("/jobs/bulk", data={"action": "cancel", "job": picked(first, second, ended)})
    assert "Cancel  2 jobs?" in look.text
    assert "1 of those that you chose is left as it is" in look.text
    assert status_of(app, first) is JobStatus.QUEUED, "it is only a look"

    app.cancel_job(second.job_id, ACME)  # somebody else was quicker
    done = client.post(
        "/jobs/bulk",
        data={
            "action": "cancel",
            "confirmed": "yes",
            "reason": "wrong file",
            "keys": hidden(look.text, "keys"),
        },
    )

    assert "1 job cancelled" in done.text
    assert "1 had ended before." in done.text
    row = app.jobs.get(first)
    assert row is not None
    assert (row.status, row.cancel_reason, row.cancelled_by) == (JobStatus.CANCELLED, "wrong file", "ops")
    assert status_of(app, ended) is JobStatus.FAILED
    noted = {(action.action, action.outcome, action.subject) for action in access.actions()}
    assert ("cancel", "done", str(first.job_id)) in noted
    assert ("cancel", "ended before", str(second.job_id)) in noted
    assert any(action == "bulk cancel" for action, _, _ in noted)


def test_all_that_match_are_retried_and_no_other(client: TestClient, app: Celery) -> None:
    keys = [failed(app, type="parity.total") for _ in range(3)]
    other = failed(app, type="parity.total", tenant=OTHER)
    look = client.post("/jobs/bulk", data={"action": "retry", "all": "yes", "filters": f"tenant={ACME}"})
    assert "Retry  3 jobs?" in look.text
    later = failed(app)

    done = client.post(
        "/jobs/bulk", data={"action": "retry", "confirmed": "yes", "keys": hidden(look.text, "keys")}
    )

    assert "3 jobs sent again" in done.text
    assert {status_of(app, key) for key in keys} == {JobStatus.QUEUED}
    assert {status_of(app, key) for key in (other, later)} == {JobStatus.FAILED}


def test_what_is_refused_is_told_by_kind(client: TestClient, app: Celery) -> None:
    keys = [failed(app, type="nobody.knows.this") for _ in range(3)]

    done = client.post(
        "/jobs/bulk", data={"action": "retry", "confirmed": "yes", "keys": "\n".join(picked(*keys))}
    )

    assert "3 refused: " in done.text
    assert "nobody.knows.this" in done.text


def test_what_a_request_has_no_time_for_can_be_gone_on_with(
    client: TestClient, app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "SECONDS", -1.0)
    keys = send(app, 2)

    done = client.post(
        "/jobs/bulk", data={"action": "cancel", "confirmed": "yes", "keys": "\n".join(picked(*keys))}
    )

    assert "2 are left" in done.text
    assert hidden(done.text, "keys").split("\n") == picked(*keys)
    assert {status_of(app, key) for key in keys} == {JobStatus.QUEUED}


def test_nobody_reaches_the_jobs_of_another_tenant_in_bulk(app: Celery, access: AccessStore) -> None:
    theirs = send(app, 1, tenant=OTHER)[0]
    token, _ = access.create("acme", Role.OPERATOR, tenant=ACME)
    client = TestClient(make_dashboard(app), base_url="https://jobs.example")
    client.headers |= {"authorization": f"Bearer {token}", "accept": "text/html"}

    for form in (
        {"action": "cancel", "job": picked(theirs)},
        {"action": "cancel", "all": "yes", "filters": f"tenant={OTHER}"},
    ):
        assert "There is nothing to cancel" in client.post("/jobs/bulk", data=form).text
    done = client.post("/jobs/bulk", data={"action": "cancel", "confirmed": "yes", "keys": picked(theirs)[0]})
    assert "0 jobs cancelled" in done.text
    assert status_of(app, theirs) is JobStatus.QUEUED


# -- one job


def test_a_job_runs_again_with_other_data_and_keeps_what_was_masked(client: TestClient, app: Celery) -> None:
    data = {"args": [[1, {"password": "hunter2"}]], "kwargs": {}}
    key = failed(app, metadata={"data": data, "note": "for audit"})
    form = client.get(f"/jobs/{key.job_id}/edit").text
    shown = json.loads(unescape(re.search(r"<textarea[^>]*>\n(.*?)</textarea>", form, re.DOTALL)[1]))  # type: ignore[index]
    assert "hunter2" not in form

    assert client.post(f"/jobs/{key.job_id}/edit", data={"data": '{"kwargs": {"no": 1}}'}).status_code == 422
    shown["args"][0][0] = 7
    sent = client.post(f"/jobs/{key.job_id}/edit", data={"data": json.dumps(shown)})

    assert sent.status_code == 303, sent.text
    row = app.jobs.find(UUID(sent.headers["location"].partition("?")[0].rpartition("/")[2]))
    assert row is not None
    assert row.metadata["data"] == {"args": [[7, {"password": "hunter2"}]], "kwargs": {}}
    assert (row.metadata["note"], row.metadata["retry_of"]) == ("for audit", str(key.job_id))
    assert status_of(app, key) is JobStatus.FAILED


def test_data_that_cannot_be_read_is_shown_again_with_what_is_wrong(client: TestClient, app: Celery) -> None:
    key = failed(app)
    answer = client.post(f"/jobs/{key.job_id}/edit", data={"data": '{"args": [1,}'})

    assert answer.status_code == 422
    assert "That is no JSON" in answer.text
    assert '{"args": [1,}' in unescape(answer.text)


def test_what_a_job_made_is_a_download_and_never_a_page(client: TestClient, app: Celery) -> None:
    key = failed(app)

    def artifacts(app: Celery, job: JobRow) -> list[Artifact]:
        name = 'é"\r\nSet-Cookie: x=1; ../../etc/passwd.html'
        return [
            Artifact(
                artifact_id="a", name=name, media_type="text/html", size=9, read=b"<b>hi</b>".__str__().encode
            )
        ]

    app.conf.job_artifacts = [artifacts]
    assert "Artifacts" in client.get(f"/jobs/{key.job_id}").text

    answer = client.get(f"/jobs/{key.job_id}/artifacts/a")

    assert answer.headers["content-type"] == "application/octet-stream"
    assert re.fullmatch(
        r"attachment; filename=\"[\w.-]+\"; filename\*=UTF-8''[\w.%-]+", answer.headers["content-disposition"]
    )
    assert "set-cookie" not in answer.headers
    assert answer.headers["x-content-type-options"] == "nosniff"
    for path in ("b", "..%2f..%2fetc%2fpasswd", "a%00", "%2e%2e"):
        assert client.get(f"/jobs/{key.job_id}/artifacts/{path}").status_code in {404, 200}, path
        assert "root:" not in client.get(f"/jobs/{key.job_id}/artifacts/{path}").text


def test_a_source_that_fails_hides_no_job(client: TestClient, app: Celery) -> None:
    def artifacts(app: Celery, job: JobRow) -> list[Artifact]:
        raise RuntimeError("the bucket is away")

    app.conf.job_artifacts = [artifacts]
    assert client.get(f"/jobs/{failed(app).job_id}").status_code == 200


def test_a_job_of_temporal_leads_to_its_workflow(client: TestClient, app: Celery) -> None:
    job = EventsOf(engine=Engine.TEMPORAL)
    app.recorder.record(job.submitted())
    app.recorder.record(job.accepted(external_id="a/b c"))

    page = client.get(f"/jobs/{job.key.job_id}").text

    assert "https://temporal.example/namespaces/default/workflows/a%2Fb%20c" in page
