"""What is encrypted, and who is shown what of it: by the dashboard, the API, the command line and the codec server."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from starlette.testclient import TestClient
from temporalio.api.common.v1 import Payload

from jobbridge import Celery
from jobbridge.cli import jobs, keys
from jobbridge.cli.root import run
from jobbridge.codec.sealing import Codec
from jobbridge.core.access import Role
from jobbridge.core.keys import JobKey, TenantId
from jobbridge.dashboard.access.identity import Authenticator
from jobbridge.dashboard.application import make_dashboard
from jobbridge.dashboard.codec_server import make_codec_server
from jobbridge.settings import load_settings
from jobbridge.store.access.tokens import AccessStore
from jobbridge.temporal.wire.payloads import SealedPayloads
from tests.job_events import EventsOf
from tests.parity.tasks import make_app

ACME = TenantId("acme")
SECRET = "the-patient-is-called-Ekaterina"
KEY = f"one:{base64.b64encode(os.urandom(32)).decode()}"


def app_with(database_url: str, **settings: str) -> Celery:
    app = make_app(
        settings=load_settings({"DATABASE_URL": database_url, "TEMPORAL_ADDRESS": "127.0.0.1:1", **settings})
    )
    app.finalize()
    return app


@pytest.fixture
def app(database_url: str) -> Iterator[Celery]:
    app = app_with(database_url, JOBBRIDGE_ENCRYPTION_KEYS=KEY)
    yield app
    app.close()


def client_of(app: Celery, role: Role) -> TestClient:
    token, _ = AccessStore(app.database).create(f"{role}-{uuid4().hex[:6]}", role)
    made = TestClient(make_dashboard(app), base_url="https://jobs.example", follow_redirects=False)
    made.headers |= {"authorization": f"Bearer {token}"}
    return made


def failed_job(app: Celery) -> UUID:
    job = EventsOf(JobKey(tenant=ACME, job_id=uuid4()))
    data = {"args": [SECRET], "kwargs": {"password": "hunter2"}}
    for event in (
        job.submitted(type="parity.total", metadata={"data": data, "order": 7}),
        job.started(),
        job.failed(1, error=f"ValueError: no {SECRET}", traceback=f"at {SECRET}", result=[SECRET]),
    ):
        app.recorder.record(event)
    return job.key.job_id


def test_operators_see_content_viewers_that_it_is_encrypted(app: Celery, database_url: str) -> None:
    job_id = failed_job(app)
    keyless = app_with(database_url)

    for path, accept in ((f"/api/v1/jobs/{job_id}", "application/json"), (f"/jobs/{job_id}", "text/html")):
        shown = {
            "operator": client_of(app, Role.OPERATOR).get(path, headers={"accept": accept}),
            "viewer": client_of(app, Role.VIEWER).get(path, headers={"accept": accept}),
            "without the key": client_of(keyless, Role.ADMIN).get(path, headers={"accept": accept}),
        }
        assert {who: answer.status_code for who, answer in shown.items()} == dict.fromkeys(shown, 200)
        texts = {who: answer.text for who, answer in shown.items()}
        assert [who for who, text in texts.items() if SECRET in text] == ["operator"]
        assert [who for who, text in texts.items() if "(encrypted)" in text] == ["viewer", "without the key"]
        assert not [who for who, text in texts.items() if "hunter2" in text or "jb1:" in text]
        assert all("ValueError" in text for text in texts.values())
    keyless.close()


def test_lists_and_files_show_that_it_is_encrypted(app: Celery) -> None:
    failed_job(app)
    client = client_of(app, Role.OPERATOR)

    for path in ("/api/v1/jobs", "/jobs", "/jobs.csv", "/jobs.json", "/", "/jobs?q=Ekaterina"):
        answer = client.get(path, headers={"accept": "*/*"})
        assert answer.status_code in (200, 404), path
        assert SECRET not in answer.text, path
        assert "jb1:" not in answer.text, path


def test_the_command_line_shows_content_to_who_has_the_key(
    app: Celery, database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    job_id = str(failed_job(app))
    keyless = app_with(database_url)

    def told(by: Celery, *arguments: str) -> tuple[int, str]:
        for command in (jobs, keys):
            monkeypatch.setattr(command, "load_app", lambda name: by)
        return run(arguments), capsys.readouterr().out

    assert SECRET in told(app, "jobs", "show", job_id)[1]
    without = told(keyless, "jobs", "show", job_id)[1]
    assert SECRET not in without
    assert "(encrypted)" in without
    code, known = told(app, "keys", "list", "--json")
    assert (code, json.loads(known)) == (0, [{"key": "one", "rows": 2, "is_here": True, "writes": True}])
    code, known = told(keyless, "keys", "list")
    assert (code, "is missing" in known) == (5, True)
    assert Codec.of(told(keyless, "keys", "new", "next")[1].strip()).key_ids == ("next",)
    keyless.close()


def test_the_codec_server_opens_payloads_for_operators(app: Celery) -> None:
    access = AccessStore(app.database)
    server = TestClient(
        make_codec_server(app.database.codec, Authenticator(access), origins=["https://temporal.example"])
    )
    plain = Payload(metadata={"encoding": b"json/plain"}, data=json.dumps(SECRET).encode())
    sealed = SealedPayloads(app.database.codec, "workflow-1").seal(plain)
    other = SealedPayloads(Codec.of(f"two:{KEY[4:]}"), "workflow-1").seal(plain)
    body = {"payloads": [in_json(sealed), in_json(plain), in_json(other)]}

    def post(path: str, token: str | None, **headers: str) -> Any:
        told = {"authorization": f"Bearer {token}"} if token else {}
        return server.post(path, json=body, headers={**told, "x-namespace": "default", **headers})

    tokens = {role: access.create(role.value, role)[0] for role in Role}
    bound = access.create("bound", Role.ADMIN, tenant=ACME)[0]
    opened = post("/decode", tokens[Role.OPERATOR], origin="https://temporal.example")

    assert opened.status_code == 200
    assert opened.json()["payloads"] == [in_json(plain), in_json(plain), in_json(other)]
    assert opened.headers["access-control-allow-origin"] == "https://temporal.example"
    assert (
        "access-control-allow-origin"
        not in post("/decode", tokens[Role.ADMIN], origin="https://evil.example").headers
    )
    refused = [
        post("/decode", token).status_code for token in (None, "jbt_wrong", tokens[Role.VIEWER], bound)
    ]
    assert refused == [401, 401, 403, 403]
    [again, *_] = post("/encode", tokens[Role.OPERATOR]).json()["payloads"][1:]
    assert SECRET not in base64.b64decode(again["data"]).decode("latin-1")
    auth = {"authorization": f"Bearer {tokens[Role.OPERATOR]}"}
    assert server.post("/decode", content=b"[", headers=auth).status_code == 415
    assert (
        server.post("/decode", content=b"[", headers={**auth, "content-type": "application/json"}).status_code
        == 400
    )


def in_json(payload: Payload) -> dict[str, Any]:
    metadata = {name: base64.b64encode(value).decode() for name, value in payload.metadata.items()}
    return {"metadata": metadata, "data": base64.b64encode(payload.data).decode()}
