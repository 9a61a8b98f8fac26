"""Signing in and out by hand."""

from __future__ import annotations

import re

from playwright.sync_api import expect

from jobbridge.core.access import Role
from jobbridge.store.access.tokens import AccessStore
from tests.browser.conftest import Arrives
from tests.browser.stage import Stage


def test_a_stranger_signs_in_with_a_token_and_is_led_to_where_they_wanted(
    arrives: Arrives, stage: Stage
) -> None:
    token, _ = AccessStore(stage.app.database).create("ada", Role.VIEWER)
    visitor = arrives(None)
    page = visitor.open("jobs", query={"status": "failed"})

    page.get_by_label("Token").fill(token)
    page.keyboard.press("Enter")

    expect(page).to_have_url(re.compile(r"/jobs\?status=failed$"))
    expect(page.get_by_text("ada · viewer")).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    visitor.open("jobs")
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


def test_a_token_that_is_of_no_use_is_told(arrives: Arrives) -> None:
    visitor = arrives(None)
    page = visitor.open("sign_in")

    page.get_by_label("Token").fill("nonsense")
    page.get_by_role("button", name="Sign in").click()

    expect(page.get_by_role("alert")).to_contain_text("of no use")
    [complaint] = visitor.complaints
    assert "401" in complaint
    visitor.complaints.clear()
