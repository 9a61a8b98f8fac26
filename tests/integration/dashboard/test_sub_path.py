"""`jobbridge dashboard` behind a proxy that serves it under a path, and takes that away."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from starlette.testclient import TestClient

from jobbridge import Celery
from jobbridge.cli.root import run
from jobbridge.core.access import Role
from jobbridge.dashboard.application import RULES, make_dashboard
from jobbridge.dev.process import free_port
from jobbridge.store.access.tokens import AccessStore
from jobbridge.store.database import Database
from tests.integration.dashboard import test_pages
from tests.integration.dashboard.test_pages import BODIES, address, bearer
from tests.support import clean_environment, worker_process

BROWSER = {"accept": "text/html", "x-forwarded-proto": "https", "host": "jobs.example"}


def test_all_that_it_leads_to_is_under_the_proxys_path(database_url: str, tmp_path: Path) -> None:
    port = free_port()
    argv = ["-m", "jobbridge.cli", "dashboard", "--port", str(port), "--proxy", "127.0.0.1"]
    argv += ["--root-path", "/ops/jobs/"]
    environment = clean_environment({"DATABASE_URL": database_url})
    database = Database(database_url)
    token, _ = AccessStore(database).create(str(uuid4()), Role.OPERATOR)
    with (
        worker_process(
            argv, name="dashboard", log_path=tmp_path / "log", env=environment, ready="Uvicorn running"
        ),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=BROWSER, timeout=30) as proxy,
    ):
        asked = proxy.get("/jobs")
        assert asked.headers["location"] == "/ops/jobs/sign-in?next=%2Fops%2Fjobs%2Fjobs"
        done = proxy.post(
            "/sign-in",
            data={"token": token, "next": "/ops/jobs/jobs"},
            headers={"origin": "https://jobs.example"},
        )
        assert done.headers["location"] == "/ops/jobs/jobs", done.text
        assert "Path=/ops/jobs" in done.headers["set-cookie"]
        cookie = {
            "cookie": done.headers["set-cookie"].partition(";")[0]
        }  # whose path is not the one that we ask for

        for page in ("/", "/jobs", "/schedules", "/workers", "/nothing-there"):
            links = set(re.findall(r'(?:href|src|action)="(/[^"]*)"', proxy.get(page, headers=cookie).text))
            assert links
            for link in links:
                assert link.startswith("/ops/jobs/"), f"{link} on {page}"
        for asset in {link for link in links if "/assets/" in link or "/static/" in link}:
            assert proxy.get(asset.removeprefix("/ops/jobs"), headers=cookie).status_code == 200, asset
    database.close()


#: With a job and a schedule, of two tenants.
app = test_pages.app
access = test_pages.access


def test_every_page_and_every_redirect_leads_on_below_the_path(app: Celery, access: AccessStore) -> None:
    dashboard = make_dashboard(app, root_path="/ops/jobs")
    client = TestClient(dashboard, base_url="https://jobs.example", follow_redirects=False)
    headers = bearer(access, Role.ADMIN)
    looked_at, redirects = set(), set()
    for rule in (rule for rule in RULES if not rule.is_stream):
        for method in rule.methods:
            answer = client.request(
                method,
                address(rule),
                headers=headers | ({} if rule.is_api else BROWSER),
                json=BODIES.get(rule.name),
            )
            assert answer.status_code < 500, rule.name
            if (location := answer.headers.get("location")) is not None:
                redirects.add(rule.name)
                assert location.startswith("/ops/jobs/"), rule.name
            if answer.headers.get("content-type", "").startswith("text/html"):
                looked_at.add(rule.name)
                for place in re.findall(r"""["'](/[a-z][^"'<>\s]*)["']""", unescape(answer.text)):
                    assert place.startswith("/ops/jobs/"), f"{place} on {rule.name}"
    assert looked_at >= {
        "overview",
        "jobs",
        "job",
        "schedule",
        "workers",
        "queue",
        "sign_in",
        "audit",
    }
    assert redirects >= {"cancel", "sign_out"}


@pytest.mark.parametrize("path", ["ops", "//evil.example", "/a b", "https://jobs.example/ops", "/ops?x=1"])
def test_what_is_no_path_is_refused(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["dashboard", "--root-path", path]) == 3
    assert "--root-path /ops/jobs" in capsys.readouterr().err
