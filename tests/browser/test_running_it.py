"""What an admin does by hand: tenants, tokens, the record of actions, history, health."""

from __future__ import annotations

import re
import uuid
from datetime import UTC, datetime, timedelta

import psycopg
from playwright.sync_api import expect

from jobbridge.core.access import Role
from jobbridge.core.keys import Engine
from tests.browser.books import EVIL, Books
from tests.browser.conftest import Arrives
from tests.browser.stage import Stage
from tests.browser.test_actions import a_tenant


def test_a_tenant_is_suspended_and_resumed(arrives: Arrives, stage: Stage, engine: Engine) -> None:
    tenant = a_tenant()
    stage.wait_for(stage.send("bill", {"number": 1}, engine=engine, tenant=tenant), "completed")
    page = arrives(Role.ADMIN).open("tenants", query={"text": tenant})

    page.get_by_text("Suspend …").click()
    page.get_by_role("textbox", name="Reason").fill("did not pay")
    page.get_by_role("button", name="Suspend").click()
    expect(page.get_by_role("row", name=tenant)).to_contain_text("did not pay")
    held = stage.send("bill", {"number": 2}, engine=engine, tenant=tenant)
    stage.wait_for(held, "skipped")
    page.goto(stage.path("tenants", query={"text": tenant}))
    page.get_by_role("button", name="Resume").click()
    expect(page.get_by_role("row", name=tenant)).to_contain_text("active")

    stage.wait_for(stage.send("bill", {"number": 3}, engine=engine, tenant=tenant), "completed")


def test_a_token_is_made_used_and_revoked(arrives: Arrives) -> None:
    admin, name = arrives(Role.ADMIN), f"ada-{uuid.uuid4().hex[:6]}"
    page = admin.open("access")
    page.get_by_role("textbox", name="Name").fill(name)
    page.get_by_role("combobox", name="Role").select_option("viewer")
    page.get_by_role("button", name="Make").click()
    token = page.locator("pre.token").inner_text()

    ada = arrives(None)
    theirs = ada.open("sign_in")
    theirs.get_by_label("Token").fill(token)
    theirs.get_by_role("button", name="Sign in").click()
    expect(theirs.get_by_role("heading", name="Overview")).to_be_visible()
    theirs.goto("about:blank")
    page = admin.open("access")
    assert token not in page.content()
    page.get_by_role("button", name=f"Revoke {name}").click()
    expect(page.get_by_role("button", name=f"Revoke {name}")).to_have_count(0)

    ada.open("jobs")
    expect(theirs.get_by_role("heading", name="Sign in")).to_be_visible()
    page = admin.open("audit")
    expect(page.get_by_text("create token").or_(page.get_by_text("revoke token")).first).to_be_visible()


def test_what_was_done_is_on_record_with_who_and_why(arrives: Arrives, stage: Stage) -> None:
    waiting = stage.send("bill", {"number": 1}, engine=Engine.CELERY, queue="nobody-serves-this")
    page = arrives(Role.OPERATOR).open("job", job_id=waiting)
    page.get_by_role("textbox", name="Reason").fill(EVIL)
    page.get_by_role("button", name="Cancel", exact=True).click()
    expect(page.locator("h1")).to_contain_text("cancelled")

    page = arrives(Role.ADMIN).open("audit")

    row = page.get_by_role("row").filter(has_text=waiting)
    expect(row).to_contain_text("cancel")
    expect(row).to_contain_text(EVIL)
    expect(row.get_by_role("rowheader")).to_contain_text("operator-")


def test_history_is_cleared_after_it_was_shown_and_the_word_was_typed(arrives: Arrives, stage: Stage) -> None:
    tenant = a_tenant()
    ended = stage.send("bill", {"number": 1}, engine=Engine.CELERY, tenant=tenant)
    waits = stage.send("bill", {"number": 2}, engine=Engine.CELERY, tenant=tenant, queue="nobody-serves-this")
    stage.wait_for(ended, "completed")
    with psycopg.connect(stage.database_url) as connection:
        long_ago = datetime.now(UTC) - timedelta(days=200)
        connection.execute("UPDATE jobs SET created_at = %s WHERE tenant = %s", [long_ago, tenant])
    visitor = arrives(Role.ADMIN)
    page = visitor.open("clearing")

    page.get_by_role("checkbox", name="completed").check()
    page.get_by_role("textbox", name="Tenant").fill(tenant)
    page.get_by_role("button", name="Show what would go").click()
    expect(page.get_by_role("heading", name="1 job would go")).to_be_visible()
    word = re.search(r"Type “(.+?)”", page.locator("form.confirm").inner_text())
    assert word is not None
    page.get_by_label("Type").fill(word[1])
    page.get_by_role("button", name="Delete").click()

    expect(page.get_by_text("1 job was deleted.")).to_be_visible()
    assert [str(row["job_id"]) for row in stage.rows("tenant = %s", tenant)] == [waits]


def test_health_names_what_is_wrong_and_what_to_do(arrives: Arrives, books: Books) -> None:
    page = arrives(Role.OPERATOR).open("health", query={"again": "yes"})

    found = page.get_by_role("region", name="To look at")
    expect(found).to_contain_text("nobody-serves-this", timeout=30_000)
    expect(found).to_contain_text("What to do")
