"""What the overview says: which jobs failed lately, and how it goes on each engine."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html import unescape
from shlex import split
from uuid import UUID, uuid4

import pytest
from click.testing import CliRunner
from starlette.testclient import TestClient

from jobbridge import Celery
from jobbridge.cli.root import jobbridge as shell
from jobbridge.core.access import Role
from jobbridge.core.keys import Engine, JobKey, TenantId
from jobbridge.dashboard.access.identity import LocalAuthenticator
from jobbridge.dashboard.application import make_dashboard
from jobbridge.settings import load_settings
from jobbridge.store.access.tokens import AccessStore
from jobbridge.store.workers.queue_pauses import QueuePauses
from tests.conftest import StartWorker
from tests.job_events import EventsOf
from tests.parity.tasks import make_app
from tests.support import wait_until

ACME = TenantId("acme")


@pytest.fixture
def app(database_url: str) -> Iterator[Celery]:
    app = make_app(settings=load_settings({"DATABASE_URL": database_url, "TEMPORAL_ADDRESS": "127.0.0.1:1"}))
    app.finalize()
    yield app
    app.close()


@pytest.fixture
def client(app: Celery) -> TestClient:
    dashboard = make_dashboard(app, authenticator=LocalAuthenticator(AccessStore(app.database)))
    return TestClient(
        dashboard, base_url="http://127.0.0.1", headers={"accept": "text/html"}, client=("127.0.0.1", 50000)
    )


def failed(app: Celery, *, error: str, engine: Engine = Engine.CELERY) -> UUID:
    job = EventsOf(JobKey(tenant=ACME, job_id=uuid4()), engine)
    for event in (job.submitted(type="shop.bill"), job.started(), job.failed(1, error=error)):
        app.recorder.record(event)
    return job.key.job_id


def completed(app: Celery, *, engine: Engine) -> None:
    job = EventsOf(JobKey(tenant=ACME, job_id=uuid4()), engine)
    for event in (job.submitted(type="shop.bill"), job.started(), job.completed(1)):
        app.recorder.record(event)


def made_days_ago(app: Celery, job_id: UUID, days: int, *, ended_days_ago: int = 0) -> None:
    with app.database.connection() as connection:
        connection.execute(
            "UPDATE jobs SET created_at = created_at - %s * interval '1 day',"
            " completed_at = completed_at - %s * interval '1 day' WHERE job_id = %s",
            [days, ended_days_ago, job_id],
        )


def failures_on(page: str) -> str:
    found = re.search(r'<section aria-labelledby="failures">.*?</section>', page, re.DOTALL)
    assert found is not None
    return unescape(found[0])


# -- failures of the last 24 hours


def test_a_job_that_was_made_long_ago_and_failed_now_is_among_the_failures(
    client: TestClient, app: Celery
) -> None:
    job_id = failed(app, error="ValueError: made on Friday")
    made_days_ago(app, job_id, 3)

    told = failures_on(client.get("/").text)

    assert "ValueError: made on Friday" in told
    assert f"/jobs/{job_id}?" in told
    assert "All 1, by type and error" in told


def test_a_job_that_failed_the_day_before_is_not(client: TestClient, app: Celery) -> None:
    job_id = failed(app, error="ValueError: long over")
    made_days_ago(app, job_id, 3, ended_days_ago=2)

    assert "ValueError: long over" not in failures_on(client.get("/").text)


def test_what_failed_lately_is_listed_one_by_one(client: TestClient, app: Celery) -> None:
    lately, before = failed(app, error="ValueError: late"), failed(app, error="ValueError: early")
    made_days_ago(app, lately, 3)
    made_days_ago(app, before, 3, ended_days_ago=2)

    [address] = re.findall(r'href="([^"]+)">All of them, one by one', client.get("/").text)
    told = client.get(unescape(address)).text

    assert str(lately) in told
    assert str(before) not in told


def test_a_failure_that_was_run_again_is_counted_and_not_listed(client: TestClient, app: Celery) -> None:
    job_id = failed(app, error="ValueError: run again since")
    app.recorder.record(EventsOf(JobKey(tenant=ACME, job_id=job_id)).submitted(uuid4(), type="shop.bill"))

    told = failures_on(client.get("/").text)

    assert "No job has failed within the last 24 hours that was not run again since." in told


# -- how it goes


def test_the_success_rate_is_told_of_each_engine(client: TestClient, app: Celery) -> None:
    failed(app, error="ValueError: no address")
    for engine in (Engine.CELERY, Engine.CELERY, Engine.TEMPORAL):
        completed(app, engine=engine)

    page = unescape(re.sub(r"<[^>]+>", " ", client.get("/").text))

    assert re.search(r"Success rate\s+75 %\s+celery\s+66\.7 %\s+temporal\s+100 %", page)


def test_who_has_no_jobs_is_given_a_command_that_sends_one(client: TestClient, app: Celery) -> None:
    for path in ("/", "/jobs", "/?tenant=acme"):
        [command] = re.findall(r"<code>jobbridge (enqueue [^<]+)</code>", client.get(path).text)
        told = CliRunner().invoke(shell, split(unescape(command).replace("{…}", "{}")))

        assert "Usage:" not in told.output, told.output


def test_an_empty_installation_leads_to_the_first_job(
    client: TestClient, app: Celery, database_url: str, celery_worker: StartWorker
) -> None:
    def steps() -> str:
        found = re.search(r'<section class="first-job.*?</section>', client.get("/").text, re.DOTALL)
        return unescape(found[0]) if found else ""

    assert "celery -A APP worker" in steps()
    assert "enqueue NAME" in steps()
    assert 'class="first-job' not in client.get("/?tenant=acme").text, "that tells of one tenant"

    celery_worker("tests.parity.app", "-P", "solo", "-n", "first@here", DATABASE_URL=database_url)
    told = wait_until(lambda: "first@here" in (text := steps()) and text)
    assert "celery -A APP worker" not in told
    [command] = re.findall(r"<code>jobbridge (enqueue [^<]+)</code>", told)
    name, data = split(command)[1], split(command)[3]
    assert name in app.tasks
    assert not name.startswith("jobbridge."), "it is a task of the application"
    assert json.loads(data) == {}, "of the tasks that workers know, one that needs nothing"
    app.enqueue(name, json.loads(data))

    assert steps() == ""
    assert "There are no jobs yet" in client.get("/?tenant=acme").text


# -- queues that are paused


def test_a_paused_queue_needs_attention(client: TestClient, app: Celery) -> None:
    QueuePauses(app.database).pause("mail", by="ada", note="the printer burns")

    page = unescape(client.get("/").text)

    assert "Paused queues" in page
    assert "Workers take nothing new from 'mail' for" in page
    assert "Nothing is stuck" not in page


def test_a_tenant_is_told_that_its_jobs_queue_is_paused_and_not_by_whom(app: Celery) -> None:
    job_id = app.tasks["parity.total"].apply_async(args=[[1]], queue="mail", tenant=ACME).id
    QueuePauses(app.database).pause("mail", by="lovelace", note="globex floods it")
    token, _ = AccessStore(app.database).create("support", Role.VIEWER, tenant=ACME)
    theirs = TestClient(make_dashboard(app), headers={"authorization": f"Bearer {token}"})

    page = theirs.get(f"/jobs/{job_id}").text

    assert "Its queue is paused: workers take nothing new from it." in page
    assert "globex" not in page
    assert "lovelace" not in page
