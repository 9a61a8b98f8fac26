"""Schedules by hand, on both engines."""

from __future__ import annotations

import re
import uuid

from playwright.sync_api import Page, expect

from jobbridge.core.access import Role
from jobbridge.core.keys import Engine, TenantId
from tests.browser.books import EVIL, Books
from tests.browser.conftest import Arrives
from tests.browser.stage import ACME, GLOBEX, Stage
from tests.browser.visitors import Visitor


def make(stage: Stage, engine: Engine, tenant: TenantId = ACME, when: str = "0 3 * * *") -> str:
    handle = stage.app.schedules.create(
        "shop.bill", when, {"number": 5}, name=f"bills {uuid.uuid4().hex[:6]}", tenant=tenant,
        zone="Europe/Dublin", engine=engine,
    )  # fmt: skip
    return str(handle.schedule_id)


def open_schedule(visitor: Visitor, schedule_id: str) -> Page:
    return visitor.open("schedule", schedule_id=schedule_id, query={"tenant": ACME})


def test_a_schedule_is_paused_with_a_note_and_resumed(arrives: Arrives, stage: Stage, engine: Engine) -> None:
    schedule_id = make(stage, engine)
    visitor = arrives(Role.OPERATOR)
    page = open_schedule(visitor, schedule_id)
    expect(page.get_by_role("region", name="Next fires").first).to_contain_text("in ")

    page.get_by_role("textbox", name="Note").fill(f"until {EVIL}")
    page.get_by_role("button", name="Pause", exact=True).click()
    expect(page.locator("main")).to_contain_text(f"It does not fire while it is paused: until {EVIL}")
    assert stage.app.schedules.find(schedule_id, ACME).paused
    page.get_by_role("button", name="Resume", exact=True).click()
    expect(page.locator("h1")).to_contain_text("active")

    assert not stage.app.schedules.find(schedule_id, ACME).paused
    trail = arrives(Role.ADMIN).open("audit").locator("tbody").inner_text()
    assert all(f"{action} schedule" in trail for action in ("pause", "resume"))
    assert stage.app.schedules.find(schedule_id, ACME).name in trail


def test_a_schedule_is_run_now_and_its_job_is_in_the_history(
    arrives: Arrives, stage: Stage, engine: Engine
) -> None:
    schedule_id = make(stage, engine)
    visitor = arrives(Role.OPERATOR)
    page = open_schedule(visitor, schedule_id)

    page.get_by_role("button", name="Run now", exact=True).click()
    expect(page.locator("h1")).to_have_text(re.compile(r"shop\.bill\s+completed"))
    expect(page.locator("main")).to_contain_text(engine.value)

    open_schedule(visitor, schedule_id).locator("#history").get_by_role("link", name="completed").click()
    expect(page.locator("h1")).to_contain_text("shop.bill")


def test_what_was_missed_is_made_up_for_after_its_number_was_shown(
    arrives: Arrives, stage: Stage, engine: Engine
) -> None:
    schedule_id = make(stage, engine)
    page = open_schedule(arrives(Role.OPERATOR), schedule_id)

    page.get_by_text("Make up for what was missed").click()
    page.get_by_label(re.compile("^From")).fill("2026-03-02T00:00")
    page.get_by_label(re.compile("^To")).fill("2026-03-04T23:00")
    page.get_by_role("button", name="See how many").click()
    expect(page.get_by_text("3 fires")).to_be_visible()
    page.get_by_role("button", name="Make up to 3 jobs").click()

    expect(page.locator("#history tbody tr")).to_have_count(3)


def test_times_are_in_the_schedules_zone_and_in_the_readers(arrives: Arrives, stage: Stage) -> None:
    schedule_id = make(stage, Engine.CELERY)
    page = open_schedule(arrives(Role.VIEWER, timezone_id="Asia/Tokyo"), schedule_id)

    table = page.get_by_role("region", name="Next fires").get_by_role("table")
    expect(table).to_contain_text("03:00")
    expect(table.get_by_role("columnheader", name=re.compile("Tokyo"))).to_be_visible()
    assert page.get_by_role("button", name="Run now", exact=True).count() == 0


def test_schedules_are_found_by_name_state_and_engine(reader: Visitor, books: Books) -> None:
    page = reader.open("schedules")

    page.get_by_role("textbox", name="Name or task").or_(page.get_by_role("searchbox")).first.fill("paused")
    page.get_by_role("combobox", name="State").select_option("paused")
    page.get_by_role("combobox", name="Engine").select_option("temporal")
    page.get_by_role("button", name="Show").click()

    expect(page.locator("tbody tr")).to_have_count(1)
    expect(page.locator("tbody")).to_contain_text("paused temporal")


def test_a_schedule_of_another_tenant_is_as_one_that_is_not_there(arrives: Arrives, books: Books) -> None:
    visitor = arrives(Role.OPERATOR, GLOBEX)
    texts = []
    for schedule_id in (books.schedules[Engine.CELERY], "00000000-0000-4000-8000-00000000dead"):
        page = visitor.open("schedule", schedule_id=schedule_id)
        texts.append(page.locator("main").inner_text().replace(schedule_id, "…"))
    assert texts[0] == texts[1]
    assert all("404" in complaint for complaint in visitor.complaints)
    visitor.complaints.clear()
