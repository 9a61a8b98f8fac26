"""The API by hand: what is sent, done, waited for and shown; and what no body can bring about."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

import pytest
from starlette.testclient import TestClient

from jobbridge import Celery
from jobbridge.core.access import Role
from jobbridge.core.keys import JobKey, TenantId
from jobbridge.core.status import JobStatus
from jobbridge.dashboard.application import make_dashboard
from jobbridge.dev.postgres import PostgresServer
from jobbridge.recording import JobRecorder
from jobbridge.settings import load_settings
from jobbridge.store.access import idempotency
from jobbridge.store.access.tokens import AccessStore
from tests.job_events import EventsOf
from tests.parity.tasks import make_app

ACME = TenantId("acme")
TOTAL = {"task": "parity.total", "args": [[1, 2]]}
Send = Callable[..., Any]


@pytest.fixture(scope="module")
def app(postgres: PostgresServer, migrated_template: str) -> Iterator[Celery]:
    url = postgres.create_database(f"test_api_{uuid4().hex}", template=migrated_template)
    app = make_app(settings=load_settings({"DATABASE_URL": url, "TEMPORAL_ADDRESS": "127.0.0.1:1"}))
    app.finalize()
    yield app
    app.close()


@pytest.fixture(scope="module")
def access(app: Celery) -> AccessStore:
    return AccessStore(app.database)


@pytest.fixture(scope="module")
def client(app: Celery) -> TestClient:
    return TestClient(make_dashboard(app), base_url="https://jobs.example", follow_redirects=False)


def bearer(access: AccessStore, role: Role = Role.OPERATOR, tenant: TenantId | None = None) -> dict[str, str]:
    token, _ = access.create(str(uuid4()), role, tenant=tenant)
    return {"authorization": f"Bearer {token}"}


@pytest.fixture
def send(client: TestClient, access: AccessStore) -> Send:
    headers = bearer(access)

    def post(path: str = "/jobs", /, *, key: str | None = None, **body: Any) -> Any:
        sent = headers if key is None else headers | {"idempotency-key": key}
        return client.post(f"/api/v1{path}", json=body or None, headers=sent)

    return post


def count(app: Celery) -> int:
    with app.database.connection() as connection:
        row = connection.execute("SELECT count(*) FROM jobs").fetchone()
        assert row is not None
        return int(row[0])


def end(app: Celery, answer: Any) -> None:
    app.cancel_job(answer.json()["job"]["job_id"])


# -- sending


def test_a_job_is_sent_with_its_options(app: Celery, send: Send, access: AccessStore) -> None:
    user = str(uuid4())

    sent = send(
        **TOTAL, tenant=ACME, queue="numbers", priority=7, countdown=3600, expires_in=7200, user_id=user,
        metadata={"invoice": 42, "password": "hunter2"},
    )  # fmt: skip

    assert (sent.status_code, sent.json()["outcome"]) == (201, "created")
    job = sent.json()["job"]
    assert sent.headers["location"] == f"/api/v1/jobs/{job['job_id']}"
    assert (job["tenant"], job["queue"], job["priority"], job["status"]) == (ACME, "numbers", 7, "scheduled")
    assert job["user_id"] == user
    assert job["run_at"] < job["expires_at"]
    row = app.jobs.find(UUID(job["job_id"]))
    assert row is not None
    assert row.metadata["invoice"] == 42
    assert row.metadata["data"] == {"args": [[1, 2]], "kwargs": {}}
    assert access.actions(ACME)[0].action == "enqueue"


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        ({"task": "parity.totl"}, 404, "'parity.total'"),
        ({"task": "celery.backend_cleanup"}, 404, "No handler"),
        ({"task": "parity.total", "args": [], "data": {}}, 422, "not both|data, for a handler"),
        ({"task": "parity.total", "kwargs": {"nothing": 1}}, 422, "do not fit"),
        (TOTAL | {"priority": 10}, 422, "priority"),
        (TOTAL | {"proirity": 1}, 422, "proirity"),
        (TOTAL | {"run_at": "2026-01-01T00:00:00"}, 422, "timezone"),
        (TOTAL | {"run_at": "9999-12-31T23:59:59-23:59"}, 422, "run_at"),
        (TOTAL | {"engine": "rabbit"}, 422, "engine"),
        (TOTAL | {"singleton_policy": "raise"}, 422, "singleton_key"),
        (TOTAL | {"user_id": "42"}, 422, "user_id"),
        ({}, 422, "task|body"),
    ],
)
def test_what_cannot_be_sent_is_told_and_makes_no_job(
    app: Celery, send: Send, body: dict[str, Any], status: int, told: str
) -> None:
    before = count(app)

    answer = send(**body)

    assert answer.status_code == status, answer.text
    assert any(part in answer.text for part in told.split("|")), answer.text
    assert {"error", "hint"} <= set(answer.json())
    assert count(app) == before


def test_a_token_of_a_tenant_sends_for_that_tenant_alone(
    app: Celery, client: TestClient, access: AccessStore
) -> None:
    headers = bearer(access, tenant=ACME)
    before = count(app)

    for body in (
        TOTAL | {"tenant": "other"},
        {"task": "parity.total", "kwargs": {"tenant_id": "other"}},
        {"task": "parity.total", "data": {"tenantId": "other"}},
    ):
        assert client.post("/api/v1/jobs", json=body, headers=headers).status_code == 403
    assert client.post("/api/v1/jobs?tenant=other", json=TOTAL, headers=headers).status_code == 403
    assert count(app) == before

    assert client.post("/api/v1/jobs", json=TOTAL, headers=headers).json()["job"]["tenant"] == ACME


def test_a_viewer_sends_nothing(app: Celery, client: TestClient, access: AccessStore) -> None:
    before = count(app)
    headers = bearer(access, Role.VIEWER)

    assert client.post("/api/v1/jobs", json=TOTAL, headers=headers).status_code == 403
    assert client.post("/api/v1/jobs", content=b"{", headers=headers).status_code == 403
    assert client.post("/api/v1/jobs", content=b"{").status_code == 401
    assert count(app) == before


# -- idempotency


def test_the_same_request_makes_one_job_also_after_its_end(app: Celery, send: Send) -> None:
    first = send(key="invoice-42", **TOTAL)
    before = count(app)

    again = send(key="invoice-42", **TOTAL)
    end(app, first)
    after = send(key="invoice-42", **TOTAL)

    assert (first.status_code, again.status_code, after.status_code) == (201, 200, 200)
    assert {again.json()["outcome"], after.json()["outcome"]} == {"repeated"}
    assert {answer.json()["job"]["job_id"] for answer in (again, after)} == {first.json()["job"]["job_id"]}
    assert after.json()["job"]["status"] == "cancelled"
    assert count(app) == before


def test_another_request_with_the_same_key_is_refused(app: Celery, send: Send) -> None:
    send(key="once", **TOTAL)
    before = count(app)

    for body in (TOTAL | {"args": [[3]]}, TOTAL | {"tenant": ACME}, TOTAL | {"priority": 3}):
        assert send(key="once", **body).status_code == 409
    assert count(app) == before


def test_of_twenty_at_once_one_makes_the_job(app: Celery, send: Send) -> None:
    before = count(app)

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: send(key="twenty", **TOTAL), range(20)))

    assert sorted(answer.status_code for answer in answers) == [200] * 19 + [201]
    assert len({answer.json()["job"]["job_id"] for answer in answers}) == 1
    assert count(app) == before + 1


def test_a_request_that_was_refused_leaves_its_key_free(app: Celery, send: Send) -> None:
    assert send(key="again", task="parity.total", kwargs={"nothing": 1}).status_code == 422

    assert send(key="again", **TOTAL).status_code == 201


def test_two_tenants_may_choose_the_same_key(client: TestClient, access: AccessStore) -> None:
    jobs = set()
    for tenant in (None, ACME, TenantId("other")):
        headers = bearer(access, tenant=tenant) | {"idempotency-key": "1"}
        answer = client.post("/api/v1/jobs", json=TOTAL, headers=headers)
        assert answer.status_code == 201
        jobs.add(answer.json()["job"]["job_id"])

    assert len(jobs) == 3


def test_a_key_is_forgotten_after_two_days(app: Celery, send: Send) -> None:
    first = send(key="old", **TOTAL)
    with app.database.connection() as connection:
        connection.execute("UPDATE job_requests SET made_at = now() - interval '47 hours' WHERE key = 'old'")
    idempotency.delete_old(app.database)
    assert send(key="old", **TOTAL).json()["job"]["job_id"] == first.json()["job"]["job_id"]
    with app.database.connection() as connection:
        connection.execute("UPDATE job_requests SET made_at = now() - interval '49 hours' WHERE key = 'old'")

    assert idempotency.delete_old(app.database) == 1

    assert send(key="old", **TOTAL).status_code == 201


def test_a_job_for_temporal_waits_for_the_relay_if_it_has_a_key(app: Celery, send: Send) -> None:
    first = send(key="temporal", **TOTAL, engine="temporal").json()
    again = send(key="temporal", **TOTAL, engine="temporal").json()

    assert (first["job"]["engine"], first["job"]["status"]) == ("temporal", "pending")
    assert again["job"]["job_id"] == first["job"]["job_id"]
    with app.database.connection() as connection:
        [(is_waiting,)] = connection.execute(
            "SELECT undelivered_since IS NOT NULL FROM jobs WHERE job_id = %s", (first["job"]["job_id"],)
        ).fetchall()
    assert is_waiting


def test_a_singleton_key_gives_the_job_that_holds_it(send: Send) -> None:
    first = send(**TOTAL, singleton_key="one")
    second = send(**TOTAL, singleton_key="one")

    assert (second.status_code, second.json()["outcome"]) == (200, "deduplicated")
    assert second.json()["job"]["job_id"] == first.json()["job"]["job_id"]
    assert send(**TOTAL, singleton_key="one", singleton_policy="raise").status_code == 409


# -- bodies that nobody wants

_DEEP = b'{"task": "parity.total", "data": ' + b"[" * 50_000 + b"]" * 50_000 + b"}"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"null",
        b"[]",
        b"42",
        _DEEP,
        b'{"task": "parity.total", "args": [' + b"[" * 45 + b"]" * 45 + b"]}",
        b'{"task": "parity.total", "args": [[NaN]]}',
        b'{"task": "parity.total", "args": [[1e999]]}',
        b'{"task": "parity.total", "args": [[' + b"9" * 5000 + b"]]}",
        b'{"task": "parity.total", "args": [["\\u0000"]]}',
        b'{"task": "parity.total", "args": [["\\ud800"]]}',
        b'{"task": "parity.total", "metadata": {"\\u0000": 1}}',
        b'{"task": "par\\u0000ity.total"}',
        b'{"task": "parity.total", "tenant": "\\udfff"}',
    ],
    ids=range(16),
)
def test_no_body_does_harm(app: Celery, client: TestClient, access: AccessStore, body: bytes) -> None:
    headers = bearer(access) | {"content-type": "application/json"}
    before = count(app)

    answer = client.post("/api/v1/jobs", content=body, headers=headers)

    assert answer.status_code == 422, answer.text
    assert answer.json()["error"]
    assert count(app) == before


def test_a_body_is_json_and_not_too_large(client: TestClient, access: AccessStore) -> None:
    headers = bearer(access)
    large = json.dumps({"task": "parity.total", "args": ["x" * 1_100_000]})

    assert client.post("/api/v1/jobs", content=large, headers=headers).status_code == 413
    assert client.post("/api/v1/jobs", data={"task": "parity.total"}, headers=headers).status_code == 415
    for name in ("text/plain", "application/xml", ""):
        sent = headers | {"content-type": name}
        assert client.post("/api/v1/jobs", content=b"{}", headers=sent).status_code == 415


def test_large_numbers_and_any_characters_come_through(app: Celery, send: Send) -> None:
    numbers = [2**200, -(2**63), 0.1, "\U0001f600", "\u2028", "' OR 1=1; --"]

    sent = send(task="parity.total", args=[numbers])

    row = app.jobs.find(UUID(sent.json()["job"]["job_id"]))
    assert row is not None
    assert row.metadata["data"]["args"] == [numbers]


# -- acting


def test_a_job_is_cancelled_once(app: Celery, send: Send, access: AccessStore) -> None:
    job = send(**TOTAL, tenant=ACME).json()["job"]["job_id"]

    first = send(f"/jobs/{job}/cancel", reason="wrong month").json()
    second = send(f"/jobs/{job}/cancel").json()

    assert (first["cancelled"], first["job"]["status"]) == (True, "cancelled")
    assert first["job"]["cancel_reason"] == "wrong month"
    assert second["cancelled"] is False
    assert [action.outcome for action in access.actions(ACME)[:2]] == ["ended before", "done"]


def test_a_job_that_ended_is_run_again(app: Celery, send: Send) -> None:
    job = send(**TOTAL).json()["job"]["job_id"]
    assert send(f"/jobs/{job}/retry").status_code == 409
    send(f"/jobs/{job}/cancel")

    again = send(f"/jobs/{job}/retry", as_new=True)

    assert again.status_code == 200
    assert again.json()["job_id"] != job
    assert again.json()["status"] == "queued"


def test_waiting_ends_with_the_job_or_the_time(
    app: Celery, client: TestClient, access: AccessStore, send: Send
) -> None:
    headers = bearer(access, Role.VIEWER)
    job = send(**TOTAL).json()["job"]["job_id"]
    assert client.get(f"/api/v1/jobs/{job}/wait?seconds=0.1", headers=headers).json()["ended"] is False

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.get, f"/api/v1/jobs/{job}/wait?seconds=30", headers=headers)
        app.cancel_job(job)
        ended = waiting.result().json()

    assert (ended["ended"], ended["job"]["status"]) == (True, "cancelled")
    assert client.get(f"/api/v1/jobs/{uuid4()}/wait", headers=headers).status_code == 404


def test_a_cookie_alone_changes_nothing(
    app: Celery, client: TestClient, access: AccessStore, send: Send
) -> None:
    job = send(**TOTAL).json()["job"]["job_id"]
    token, _ = access.create(str(uuid4()), Role.OPERATOR)
    browser = TestClient(client.app, base_url="https://jobs.example", follow_redirects=False)
    browser.post("/sign-in", data={"token": token})
    path = f"/api/v1/jobs/{job}/cancel"

    for headers in (
        {},
        {"x-form-token": "0" * 64},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": "https://evil.example"},
    ):
        assert browser.post(path, headers=headers).status_code == 403
    assert app.jobs.find(UUID(job)).status is JobStatus.QUEUED  # type: ignore[union-attr]

    assert browser.post(path, headers={"sec-fetch-site": "same-origin"}).status_code == 200


# -- looking


def test_a_job_is_told_without_its_secrets(app: Celery, client: TestClient, access: AccessStore) -> None:
    job = EventsOf(JobKey(tenant=ACME, job_id=uuid4()))
    recorder = JobRecorder(app.database)
    recorder.record(job.submitted(type="mail", metadata={"data": {"password": "hunter2", "to": "x"}}))
    recorder.record(job.started())
    recorder.record(job.failed(1, error="ConnectionError: postgres://ada:hunter2@db"))

    bound = client.get(f"/api/v1/jobs/{job.key.job_id}", headers=bearer(access, tenant=ACME))
    told = client.get(f"/api/v1/jobs/{job.key.job_id}", headers=bearer(access)).json()

    assert "hunter2" not in bound.text
    assert bound.json()["worker"] is None
    assert told["metadata"]["data"] == {"password": "••••••", "to": "x"}
    assert [step["step_name"] for step in told["steps"]] == ["attempt"]
    assert told["steps"][0]["status"] == "failed"


def test_the_counts_are_what_sql_counts(app: Celery, client: TestClient, access: AccessStore) -> None:
    for tenant in (None, ACME):
        told = client.get("/api/v1/counts", headers=bearer(access, tenant=tenant)).json()["counts"]
        with app.database.connection() as connection:
            rows = connection.execute(
                "SELECT runner_type, status, count(*) FROM jobs WHERE tenant = coalesce(%(of)s, tenant) GROUP BY 1, 2",
                {"of": tenant},
            ).fetchall()
        assert {(row["engine"], row["status"], row["jobs"]) for row in told} == set(rows)


def test_a_filter_that_there_is_not_is_refused(client: TestClient, access: AccessStore) -> None:
    answer = client.get("/api/v1/jobs?statsu=failed", headers=bearer(access))

    assert (answer.status_code, answer.json()["problems"][0]["where"]) == (422, "query.statsu")
    twice = client.get("/api/v1/jobs?tenant=acme&tenant=other", headers=bearer(access))
    assert (twice.status_code, twice.json()["problems"][0]["where"]) == (422, "query.tenant")
    several = client.get("/api/v1/jobs?status=failed&status=queued", headers=bearer(access))
    assert several.status_code == 200


def test_what_can_be_sent_is_listed(client: TestClient, access: AccessStore) -> None:
    tasks = client.get("/api/v1/tasks", headers=bearer(access)).json()["tasks"]

    names = [task["name"] for task in tasks]
    assert "parity.total" in names
    assert not [name for name in names if name.startswith(("celery.", "jobbridge."))]


# -- schedules


def test_a_schedule_is_paused_run_and_resumed(
    app: Celery, client: TestClient, access: AccessStore, send: Send
) -> None:
    made = app.schedules.create("parity.total", "0 2 * * *", [[1]], name=f"n-{uuid4().hex[:6]}", tenant=ACME)
    path, headers = f"/schedules/{made.schedule_id}", bearer(access)

    paused = send(f"{path}/pause", note="until Monday").json()
    job = send(f"{path}/run").json()["job_id"]
    shown = client.get(f"/api/v1{path}", headers=headers).json()
    resumed = send(f"{path}/resume").json()

    assert (paused["paused"], paused["note"], paused["next_fire_at"]) == (True, "until Monday", None)
    assert [(fire["trigger"], fire["job_id"]) for fire in shown["fires"]] == [("manual", job)]
    assert resumed["paused"] is False
    assert len(client.get(f"/api/v1{path}", headers=headers).json()["upcoming"]) == 5
    filled = send(f"{path}/backfill", start="2026-01-01T00:00:00Z", end="2026-01-03T00:00:00Z").json()
    assert len(filled["made"]) == 2
    too_many = send(f"{path}/backfill", start="2020-01-01T00:00:00Z", end="2026-01-01T00:00:00Z")
    assert too_many.status_code == 422
    actions = [action.action for action in access.actions(ACME)[:5]]
    assert actions == [
        "backfill schedule",
        "backfill schedule",
        "resume schedule",
        "run now schedule",
        "pause schedule",
    ]
    assert access.actions(ACME)[0].outcome == "refused"


# -- rules across the fleet


def test_a_rule_is_set_listed_and_removed(client: TestClient, access: AccessStore, send: Send) -> None:
    rule = {"kind": "concurrency", "target": "letters", "per": "queue"}
    told = send("/rules", **rule, limit=16, fair=True, weights={"acme": 3}, ageing=60).json()
    assert (told["allowed"], told["fair"], told["weights"], told["ageing_seconds"]) == (
        16,
        True,
        {"acme": 3},
        60,
    )
    shown = client.get("/api/v1/rules", headers=bearer(access)).json()
    assert [each["target"] for each in shown["rules"]] == ["letters"]
    assert [(each["rule"], each["allowed"], each["waiting"]) for each in shown["limits"]] == [
        ("concurrency queue letters", 16, 0)
    ]
    assert send("/rules", kind="rate_limit", target="x", limit="fast").status_code == 422
    assert send("/rules/remove", **rule).json() == {"removed": True}
    assert send("/rules/remove", **rule).json() == {"removed": False}
    actions = [(action.action, action.outcome) for action in access.actions(limit=4)]
    assert actions == [
        ("remove rule", "was not set"),
        ("remove rule", "done"),
        ("set rule", "refused"),
        ("set rule", "done"),
    ]


# -- queues


def test_who_pauses_a_queue_that_nobody_knows_is_warned(client: TestClient, send: Send) -> None:
    for done in ("pause", "resume"):
        told = send(f"/queues/leters/{done}").json()
        assert (told["changed"], told["warning"].split(":")[0]) == (True, "Nobody knows a queue 'leters'")


def test_a_queue_is_paused_and_resumed(client: TestClient, access: AccessStore, send: Send) -> None:
    send(**TOTAL, queue="letters")
    headers = bearer(access)

    def shown() -> dict[str, Any]:
        queues = client.get("/api/v1/queues", headers=headers).json()["queues"]
        return next(queue for queue in queues if queue["name"] == "letters")

    assert shown()["pause"] is None
    assert [(each["engine"], each["ready"]) for each in shown()["waiting"]] == [("celery", 1)]
    assert send("/queues/letters/pause", note="until Monday").json()["changed"] is True
    assert shown()["pause"]["note"] == "until Monday"
    assert send("/queues/letters/pause").json()["changed"] is False
    assert send("/queues/letters/resume").json() == {
        "name": "letters",
        "paused": False,
        "changed": True,
        "warning": None,
    }
    assert shown()["pause"] is None
    assert send(f"/queues/{'x' * 300}/pause").status_code == 422
    actions = [(action.action, action.outcome) for action in access.actions(limit=4)]
    assert actions == [
        ("pause queue", "refused"),
        ("resume queue", "done"),
        ("pause queue", "was paused before"),
        ("pause queue", "done"),
    ]


# -- links for customers


def test_a_link_shows_how_far_a_job_is_and_nothing_else(
    app: Celery, client: TestClient, access: AccessStore, send: Send
) -> None:
    job = EventsOf(JobKey(tenant=ACME, job_id=uuid4()))
    recorder = JobRecorder(app.database)
    recorder.record(job.submitted(type="secret-type", metadata={"data": "secret-data"}))
    recorder.record(job.started())

    made = send(f"/jobs/{job.key.job_id}/public-link", hours=1)
    assert made.status_code == 201
    url = made.json()["url"]

    shown = client.get(url)
    assert shown.json()["status"] == "running"
    assert set(shown.json()) == {"status", "progress", "asked_at", "began_at", "ended_at"}
    recorder.record(job.failed(1, error="secret-error"))
    page = client.get(url, headers={"accept": "text/html"})
    assert "This did not work" in page.text
    for text in ("secret", ACME, str(job.key.job_id), "attempt"):
        assert text not in page.text.replace(url, "")
        assert text not in client.get(url).text


def test_links_of_no_use_are_answered_alike(
    app: Celery, client: TestClient, access: AccessStore, send: Send
) -> None:
    job = send(**TOTAL).json()["job"]["job_id"]
    expired, gone = (send(f"/jobs/{job}/public-link").json()["url"] for _ in range(2))
    with app.database.connection() as connection:
        connection.execute("UPDATE job_links SET expires_at = now() - interval '1 s' WHERE true")
        link = send(f"/jobs/{job}/public-link").json()["url"]
        assert client.get(link).status_code == 200
        connection.execute(
            "UPDATE job_links SET job_id = %s WHERE expires_at > now() AND job_id = %s", (uuid4(), job)
        )
    other = send(**TOTAL).json()["job"]["job_id"]
    revoked = send(f"/jobs/{other}/public-link").json()["url"]
    client.delete(f"/api/v1/jobs/{other}/public-link", headers=bearer(access))

    answers = [
        client.get(url)
        for url in (
            expired,
            gone,
            link,
            revoked,
            link + "x",
            f"/public/jobs/{job}",
            "/public/jobs/%00",
            "/public/jobs/%ff",
        )
    ]

    assert {answer.status_code for answer in answers} == {404}
    assert len({answer.text for answer in answers}) == 1
    assert len({str(sorted(answer.headers.items())) for answer in answers}) == 1


def test_links_are_not_for_guessing(app: Celery) -> None:
    guesser = TestClient(make_dashboard(app), base_url="https://jobs.example")

    answers = [guesser.get("/public/jobs/x").status_code for _ in range(121)]

    assert answers == [404] * 120 + [429]
