"""Whatever stands in an address or a form: no route fails of it, and none leads elsewhere or makes a page of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import quote
from uuid import uuid4

import pytest
from httpx import Response
from starlette.testclient import TestClient

from jobbridge import Celery
from jobbridge.core.access import Role
from jobbridge.dashboard.access.request_context import Rule
from jobbridge.dashboard.application import make_dashboard
from jobbridge.dev.postgres import PostgresServer
from jobbridge.settings import load_settings
from jobbridge.store.access.tokens import AccessStore
from jobbridge.store.schema.migrate import migrate
from tests.integration.dashboard.test_pages import ASKED, BODIES, BROWSER, address
from tests.originals import create_originals
from tests.parity.tasks import make_app

ID = str(uuid4())
ODD = (
    "", " ", "%", "\\", "'", '"', "\0", "\r\nSet-Cookie: x=1", "../..", "//evil.example", "<script>alert(1)</script>",
    "{{7*7}}", "' OR 1=1 --", "é", "\u202e", "\uff19", "-1", "0", "9" * 20, "1e9", "nan", "infinity", "x" * 5000,
    f"urn:uuid:{ID}", f"{{{ID}}}", ID.upper(), f"1_{ID}", f"{'9' * 16}_{ID}", f"-{'9' * 14}_{ID}", f"{ID} acme",
    "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2026-13-01",
)  # fmt: skip
QUERY = (
    "tenant", "before", "after", "after_tenant", "text", "status", "type", "engine", "queue", "since", "from", "to",
    "limit", "range", "days", "state", "choose", "column", "next", "save", "forget",
)  # fmt: skip
FIELDS = (
    "action", "job", "keys", "confirmed", "all", "filters", "reason", "as_new", "data", "note", "start", "end", "queue",
    "tenant", "name", "role", "days", "token_id", "status", "before", "after", "word", "form_token",
)  # fmt: skip
#: Of them each route is asked with some, and other routes with others.
STEP = 8
#: With these an odd value gets further.
LIKELY = {"action": "cancel", "status": "failed", "word": "clear", "before": "2020-01-01T00:00:00+00:00"}


@pytest.fixture(scope="module", params=["fresh", "adopted"])
def app(request: pytest.FixtureRequest, postgres: PostgresServer, migrated_template: str) -> Iterator[Celery]:
    """In a database that was adopted tenants are uuids, and Postgres refuses what is none."""
    name = f"test_odd_{uuid4().hex}"
    if request.param == "fresh":
        url = postgres.create_database(name, template=migrated_template)
    else:
        url = postgres.create_database(name)
        create_originals(url)
        migrate(url)
    app = make_app(settings=load_settings({"DATABASE_URL": url, "TEMPORAL_ADDRESS": "127.0.0.1:1"}))
    app.finalize()
    yield app
    app.close()


def test_no_value_makes_a_route_fail(app: Celery) -> None:
    client = TestClient(
        make_dashboard(app),
        base_url="https://jobs.example",
        follow_redirects=False,
        raise_server_exceptions=False,
    )
    token, _ = AccessStore(app.database).create(str(uuid4()), Role.ADMIN)
    headers = {"authorization": f"Bearer {token}"} | BROWSER
    failed = []
    for number, rule in enumerate(
        rule for rule in ASKED if rule.name != "sign_out"
    ):  # that one sets a cookie
        for odd in ODD[number % STEP :: STEP]:
            for path in _addresses(rule, odd, QUERY[number % len(QUERY)]):
                form = dict.fromkeys(FIELDS, odd) | LIKELY if rule.is_form else None
                body = None if form else BODIES.get(rule.name)
                answer = client.request(rule.methods[0], path, headers=headers, data=form, json=body)
                if _is_bad(answer):
                    failed.append((rule.name, path[:200], answer.status_code))
    assert failed == []


def _is_bad(answer: Response) -> bool:
    is_page = "html" in answer.headers.get("content-type", "")
    return (
        answer.status_code >= 500
        or (is_page and "<script>alert" in answer.text)
        or "x=1" in answer.headers.get("set-cookie", "")
        or re.match(r"/(?![/\\])", answer.headers.get("location", "/")) is None
    )


def _addresses(rule: Rule, odd: str, name: str) -> list[str]:
    """Give the addresses with the value as a tenant, as something else that is asked for, and in the path."""
    known, value = address(rule, "nobodys"), quote(odd, safe="")
    in_path = re.sub(r"{\w+}", lambda _: value or "%20", rule.path)
    return [f"{known}?tenant={value}", f"{known}?{name}={value}", *({in_path} - {rule.path})]
