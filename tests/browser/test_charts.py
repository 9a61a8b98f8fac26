"""The overview's charts: drawn by the server, and by uPlot where there is JavaScript; they follow the jobs in place."""

from __future__ import annotations

from uuid import uuid4

from playwright.sync_api import Page, expect

from jobbridge.core.access import Role
from jobbridge.core.keys import Engine, TenantId
from tests.browser.checking import fits
from tests.browser.conftest import Arrives
from tests.browser.stage import Stage
from tests.browser.visitors import PHONE
from tests.support import wait_until

PICTURE = "document.querySelector('#graph-throughput canvas').toDataURL()"


def drawn(page: Page) -> int:
    return page.locator("figure .plot canvas").count()


def completed_by_hour(page: Page) -> list[int]:
    return [int(text) for text in page.locator("table[data-charts] [data-completed]").all_inner_texts()]


def test_charts_follow_the_jobs_in_place_and_by_the_hour_they_name(arrives: Arrives, stage: Stage) -> None:
    visitor = arrives(Role.VIEWER, tenant := TenantId(str(uuid4())))
    page = visitor.open("overview")
    expect(page.locator("figure .plot canvas")).to_have_count(3)
    expect(page.locator("figure .frame").first).to_be_hidden()
    page.locator("summary").click()
    page.evaluate("document.querySelectorAll('canvas').forEach(each => each.dataset.same = 'yes')")
    before = page.evaluate(PICTURE)

    for number in range(3):
        stage.wait_for(
            stage.send("bill", {"number": number}, engine=Engine.CELERY, tenant=tenant), "completed"
        )
    page.evaluate("document.body.dispatchEvent(new CustomEvent('jobs:changed', {bubbles: true}))")

    # The hour may turn meanwhile: the jobs are in the last one, or in the last two.
    wait_until(lambda: sum(completed_by_hour(page)[-2:]) == 3, timeout=12, message="the table has the jobs")
    assert page.locator("canvas[data-same=yes]").count() == drawn(page) == 3
    assert page.evaluate(PICTURE) != before
    assert page.locator("details.numbers").get_attribute("open") is not None
    page.locator("#graph-throughput .u-over").hover(position={"x": 1, "y": 1})
    over = page.locator("#graph-throughput .u-over").bounding_box()
    assert over is not None
    page.mouse.move(over["x"] + over["width"] - 3, over["y"] + 20)
    expect(page.locator("#graph-throughput .bubble")).to_contain_text(
        f"completed{completed_by_hour(page)[-1]}"
    )


def test_charts_follow_the_colours_and_the_width(arrives: Arrives) -> None:
    visitor = arrives(Role.VIEWER)
    page = visitor.open("overview", query={"range": "7d"})
    expect(page.locator("figure .plot canvas")).to_have_count(3)
    light = page.evaluate(PICTURE)

    page.emulate_media(color_scheme="dark")
    page.set_viewport_size(PHONE)

    wait_until(lambda: page.evaluate(PICTURE) != light, message="it is drawn anew")
    expect(page.locator("figure .plot canvas")).to_have_count(3)
    fits(page, PHONE)


def test_without_javascript_the_server_has_drawn_them(arrives: Arrives) -> None:
    page = arrives(Role.VIEWER, java_script_enabled=False).open("overview", query={"range": "30d"})

    expect(page.get_by_role("img", name="Jobs that ended in each day")).to_be_visible()
    page.locator("summary").click()
    assert page.locator("table[data-charts] tbody tr").count() == 30
    page.get_by_role("link", name="7 days").click()
    expect(page.get_by_role("heading", name="What ended in the last 7 days")).to_be_visible()
