"""Who may read every table (a replica, a backup, a role for reports) gets nothing of the dashboard by that."""

from __future__ import annotations

import base64
import hmac
import secrets
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import sql
from starlette.testclient import TestClient

from jobbridge import Celery
from jobbridge.core.access import Role
from jobbridge.core.keys import JobKey, TenantId
from jobbridge.core.signed.signing_keys import SigningKeys
from jobbridge.dashboard.access.identity import COOKIE, Authenticator
from jobbridge.dashboard.access.rate_limits import AttemptLimit
from jobbridge.dashboard.application import make_dashboard
from jobbridge.dev.postgres import PostgresServer
from jobbridge.errors import ConfigurationError
from jobbridge.recording import JobRecorder
from jobbridge.settings import load_settings
from jobbridge.store.access.links import LinkStore
from jobbridge.store.access.tokens import AccessStore
from tests.integration.dashboard.test_access import ADA, BROWSER, behind_proxy, token_of
from tests.job_events import EventsOf
from tests.parity.tasks import make_app

ACME = TenantId("acme")
KEYS = ["n" * 40, "o" * 40]


@dataclass(frozen=True)
class Installation:
    app: Celery
    url: str
    #: Of a role that reads everything, and may do nothing else.
    reader_url: str
    job: JobKey

    def client(self, *keys: str) -> TestClient:
        """Give a client of a further process that serves the dashboard with these keys, or with none set."""
        made = [key.encode() for key in keys] or [secrets.token_bytes(32)]
        authenticator = Authenticator(AccessStore(self.app.database), SigningKeys(made))
        served = make_dashboard(self.app, authenticator=authenticator)
        return TestClient(served, base_url="https://jobs.example", follow_redirects=False)


@pytest.fixture(scope="module")
def installation(postgres: PostgresServer, migrated_template: str) -> Iterator[Installation]:
    name, role = f"test_stolen_{uuid4().hex}", f"reader_{uuid4().hex[:8]}"
    url = postgres.create_database(name, template=migrated_template)
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute(
            sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'x' IN ROLE pg_read_all_data").format(sql.Identifier(role))
        )
    settings = load_settings(
        {"DATABASE_URL": url, "TEMPORAL_ADDRESS": "127.0.0.1:1", "JOBBRIDGE_SECRET_KEY": KEYS[0]}
    )
    app = make_app(settings=settings)
    app.finalize()
    key = JobKey(tenant=ACME, job_id=uuid4())
    JobRecorder(app.database).record(EventsOf(key).submitted())
    try:
        yield Installation(app, url, f"postgresql://{role}:x@{url.partition('@')[2]}", key)
    finally:
        app.close()
        with psycopg.connect(postgres.url(), autocommit=True) as admin:
            admin.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


def _lived_in(installation: Installation) -> None:
    """Have all there is of tokens, sessions, links, keys and audit, also of a process of 0.1.0."""
    access = AccessStore(installation.app.database)
    client = TestClient(make_dashboard(installation.app), base_url="https://jobs.example")
    for role, tenant in ((Role.ADMIN, None), (Role.OPERATOR, ACME), (Role.VIEWER, None)):
        token, _ = access.create(str(uuid4()), role, tenant=tenant)
        assert client.post("/sign-in", data={"token": token}).status_code == 200
    client.post("/sign-out", data={"form_token": token_of(client.get("/", headers=BROWSER).text)})
    links = LinkStore(installation.app.database)
    link, _ = links.create(installation.job, lasts=timedelta(days=1), created_by="ada")
    assert client.get(f"/public/jobs/{link}").status_code == 200
    with installation.app.database.connection() as own:
        own.execute(
            "INSERT INTO job_secrets (name, secret) VALUES ('forms', sha256('x')) ON CONFLICT DO NOTHING"
        )
    proxied = behind_proxy(installation.app, access)
    body = {"task": "parity.total", "args": [[1]]}
    headers = ADA | {"idempotency-key": str(uuid4())}
    page = proxied.get(f"/jobs/{installation.job.job_id}", headers=ADA | BROWSER).text
    sent = proxied.post("/api/v1/jobs", json=body, headers=headers | {"x-form-token": token_of(page)})
    assert sent.status_code == 201


def _read_all(url: str) -> tuple[set[bytes], list[tuple[UUID, bytes]]]:
    """Read every value of every table as that role; and the tokens by their names, as the source tells everybody."""
    values: set[bytes] = set()
    with psycopg.connect(url) as connection:
        tables = connection.execute(
            "SELECT table_schema, table_name FROM information_schema.tables"
            " WHERE table_schema NOT IN ('pg_catalog', 'information_schema') AND table_type = 'BASE TABLE'"
        ).fetchall()
        assert ("public", "job_tokens") in tables
        for table in tables:
            for row in connection.execute(sql.SQL("SELECT * FROM {}").format(sql.Identifier(*table))):
                for value in row:
                    values.add(bytes(value) if isinstance(value, bytes | memoryview) else str(value).encode())
        tokens = connection.execute("SELECT token_id, hash FROM job_tokens").fetchall()
    return values, tokens


def _cookies_of(key: bytes, token_id: UUID, token_hash: bytes) -> set[str]:
    """Make what a session of that token would be, was it signed with the key: now, and in 0.1.0."""
    payload = struct.pack(">16sQ16s", token_id.bytes, int(time.time()) + 3600, b"n" * 16)
    return {
        base64.urlsafe_b64encode(payload + hmac.digest(secret, b"session\0" + signed, "sha256")).decode()
        for secret in (key, sha256(key).digest())
        for signed in (payload, token_hash + payload)
    }


def _forms_of(key: bytes) -> set[str]:
    whose = b"ada\noperator\nNone"
    return {hmac.digest(secret, b"form\0" + whose, "sha256").hex() for secret in (key, sha256(key).digest())}


def _written(value: bytes) -> set[str]:
    """Write a value in each way that it could be a token, a link or a cookie."""
    ways = {value.hex(), base64.urlsafe_b64encode(value).decode()}
    text = value.decode("latin-1")
    if len(text) < 200 and text.isascii() and text.isprintable():
        ways.add(text.strip())
    return ways | {f"jbt_{way}" for way in ways if way}


def _asked(client: TestClient, **headers: str) -> int:
    client.cookies.clear()
    return client.get("/api/v1/jobs", headers=headers).status_code


def test_what_is_in_the_tables_opens_nothing(installation: Installation) -> None:
    _lived_in(installation)
    values, tokens = _read_all(installation.reader_url)
    served = make_dashboard(installation.app)
    served.state.dashboard.looks = AttemptLimit(attempts=10**6)  # what is refused for its number says nothing
    client = TestClient(served, base_url="https://jobs.example")
    proxied = behind_proxy(installation.app, AccessStore(installation.app.database))
    cancel = f"/jobs/{installation.job.job_id}/cancel"
    keys = {value for value in values if len(value) >= 16}
    assert len(tokens) >= 3
    assert {token_hash for _, token_hash in tokens} < keys

    for token in tokens:
        for cookie in _cookies_of(token[1], *token):
            assert _asked(client, cookie=f"{COOKIE}={cookie}") == 401
    for key in keys:
        for cookie in _cookies_of(key, *tokens[0]):
            assert _asked(client, cookie=f"{COOKIE}={cookie}") == 401
        for form in _forms_of(key):
            assert proxied.post(cancel, data={"form_token": form}, headers=ADA).status_code == 403
        for text in _written(key):
            assert _asked(client, authorization=f"Bearer {text}") == 401
            assert _asked(client, cookie=f"{COOKIE}={text}") == 401
            assert client.get(f"/public/jobs/{text}").status_code == 404

    # That these are made well, the right key shows.
    right = [_cookies_of(KEYS[0].encode(), *token) for token in tokens]
    answers = [{_asked(client, cookie=f"{COOKIE}={cookie}") for cookie in cookies} for cookies in right]
    assert answers == [{200, 401}] * len(tokens)


def test_no_route_gives_who_has_read_the_tables_more_than_a_stranger(installation: Installation) -> None:
    """By every route, also those of the live stream, of measures and of links: with all that can be made of a row."""
    _lived_in(installation)
    with psycopg.connect(installation.reader_url) as reader:
        tokens = reader.execute(
            "SELECT token_id, hash FROM job_tokens WHERE revoked_at IS NULL ORDER BY role LIMIT 1"
        ).fetchall()
        [(link,)] = reader.execute("SELECT hash FROM job_links LIMIT 1").fetchall()
        [(session,)] = reader.execute("SELECT session FROM job_signouts LIMIT 1").fetchall()
    [(token_id, token_hash)] = tokens
    served = make_dashboard(installation.app)
    served.state.dashboard.looks = AttemptLimit(attempts=10**6)
    client = TestClient(served, base_url="https://jobs.example", follow_redirects=False)
    forged = [
        *({"cookie": f"{COOKIE}={each}"} for each in _cookies_of(token_hash, token_id, token_hash)),
        {"cookie": f"{COOKIE}={base64.urlsafe_b64encode(session).decode()}"},
        {"authorization": f"Bearer {token_hash.hex()}"},
        {"authorization": f"Bearer jbt_{base64.urlsafe_b64encode(token_hash).decode().rstrip('=')}"},
        {"authorization": f"Bearer {token_id}"},
        {"x-forwarded-user": "ada", "x-forwarded-groups": "admin", "remote-user": "ada"},
    ]
    known = {"job_id": str(installation.job.job_id), "token_id": str(token_id), "secret": link.hex()}
    asked = 0
    for route in served.routes:
        path, methods = getattr(route, "path", ""), getattr(route, "methods", None) or {"GET"}
        for name, value in known.items():
            path = path.replace(f"{{{name}}}", value)
        if "{" in path or "static" in path:
            continue
        for method in methods - {"HEAD", "OPTIONS"}:
            client.cookies.clear()
            stranger = client.request(method, path)
            for headers in forged:
                client.cookies.clear()
                answer = client.request(method, path, headers={**headers, "last-event-id": "1"})
                assert answer.status_code == stranger.status_code, (method, path, headers)
                asked += 1
    assert asked > 200


def _cookie(client: TestClient, installation: Installation) -> dict[str, Any]:
    token, _ = AccessStore(installation.app.database).create(str(uuid4()), Role.OPERATOR)
    assert client.post("/sign-in", data={"token": token}).status_code == 303
    return {"cookie": f"{COOKIE}={client.cookies[COOKIE]}"}


def test_processes_that_have_the_same_key_know_each_others_sessions(installation: Installation) -> None:
    headers = _cookie(installation.client(KEYS[0]), installation)

    assert installation.client(KEYS[0]).get("/api/v1/jobs", headers=headers).status_code == 200
    for others in ((), (KEYS[1],)):
        assert installation.client(*others).get("/api/v1/jobs", headers=headers).status_code == 401


def test_a_key_is_changed_without_ending_sessions_and_forms(installation: Installation) -> None:
    newest, older = KEYS
    before, between, after = (
        installation.client(older),
        installation.client(newest, older),
        installation.client(newest),
    )
    old, new = _cookie(before, installation), _cookie(between, installation)
    path = f"/jobs/{installation.job.job_id}"
    form = {"form_token": token_of(before.get(path, headers=old | BROWSER).text)}

    assert between.post("/sign-out", data=form, headers=new).status_code == 403
    assert between.get("/api/v1/jobs", headers=old).status_code == 200
    assert between.post("/sign-out", data=form, headers=old).status_code == 303
    assert after.get("/api/v1/jobs", headers=new).status_code == 200
    assert after.get("/api/v1/jobs", headers=_cookie(before, installation)).status_code == 401


def test_a_key_may_be_in_a_file_and_is_refused_if_it_can_be_guessed(tmp_path: Any) -> None:
    file = tmp_path / "keys"
    file.write_text(f"{KEYS[0]}\n{KEYS[1]}\n")
    environment = {"JOBBRIDGE_SECRET_KEY_FILE": str(file)}

    assert load_settings(environment).secret_keys() == tuple(KEYS)
    assert load_settings({}).secret_keys() == ()
    file.write_text(f"{KEYS[0]}\nshort\n")
    with pytest.raises(ConfigurationError, match=r"keys, has a key of less than 32 characters") as refused:
        load_settings(environment).secret_keys()
    assert "short" not in str(refused.value)
    file.unlink()
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_settings(environment).secret_keys()
