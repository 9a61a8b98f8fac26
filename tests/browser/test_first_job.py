"""An installation without jobs: what to do first, and that it goes when it is done."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Browser, expect

from jobbridge.core.access import Role
from jobbridge.core.keys import Engine
from tests.browser.checking import fits, problems_of_axe
from tests.browser.stage import run_stage
from tests.browser.visitors import PHONE, visit


def test_an_empty_installation_leads_to_the_first_job(
    browser: Browser, database_url: str, tmp_path: Path
) -> None:
    with (
        run_stage(database_url, "127.0.0.1:1", tmp_path, workers=()) as stage,
        visit(browser, stage, stage.cookie(Role.VIEWER)) as visitor,
    ):
        page = visitor.open("overview")
        steps = page.get_by_role("region", name="The first job")
        expect(steps).to_contain_text("celery -A tests.browser.app worker")
        expect(steps).to_contain_text("jobbridge enqueue NAME")
        assert problems_of_axe(page) == []
        fits(page, PHONE)

        stage.send("keep", {}, engine=Engine.CELERY)

        expect(steps).to_have_count(0)
        expect(page.locator("#count-queued")).to_have_text("1")
