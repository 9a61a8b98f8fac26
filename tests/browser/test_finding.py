"""Finding jobs: filters, columns, pages, downloads; and what somebody of another tenant finds."""

from __future__ import annotations

import csv
import re
from pathlib import Path

from playwright.sync_api import expect

from jobbridge.core.access import Role
from jobbridge.core.keys import Engine
from tests.browser.books import THEIRS, Books
from tests.browser.checking import fits, problems_of_axe
from tests.browser.conftest import Arrives
from tests.browser.stage import ACME, GLOBEX, Stage
from tests.browser.test_actions import a_tenant
from tests.browser.visitors import PHONE, Visitor


def test_filters_narrow_the_list_and_are_in_the_address(reader: Visitor, books: Books) -> None:
    page = reader.open("jobs")

    page.get_by_role("checkbox", name="failed").check()
    page.get_by_role("combobox", name="Engine").select_option("temporal")
    page.get_by_role("textbox", name="Tenant").fill(ACME)
    page.get_by_role("button", name="Show").click()

    expect(page).to_have_url(re.compile(r"status=failed&.*engine=temporal&.*tenant=acme"))
    expect(page.locator(f"[data-job='{books.failed[Engine.TEMPORAL]}']")).to_be_visible()
    expect(page.locator(f"[data-job='{books.failed[Engine.CELERY]}']")).to_have_count(0)
    statuses = set(page.locator("tbody [data-field=status]").all_inner_texts())
    assert statuses == {"failed"}


def test_an_id_leads_to_its_job(reader: Visitor, books: Books) -> None:
    page = reader.open("jobs")

    page.get_by_label("Id, or text of the error").fill(books.running[Engine.TEMPORAL])
    page.keyboard.press("Enter")

    expect(page).to_have_url(re.compile(f"/jobs/{books.running[Engine.TEMPORAL]}"))
    expect(page.locator("h1")).to_contain_text("shop.report")


def test_on_a_phone_the_filter_is_folded_and_works(arrives: Arrives, stage: Stage) -> None:
    tenant = a_tenant()
    completed = stage.send("bill", {"number": 1}, engine=Engine.CELERY, tenant=tenant)
    failed = stage.send("bill", {"number": 17}, engine=Engine.CELERY, tenant=tenant)
    stage.wait_for(completed, "completed")
    stage.wait_for(failed, "failed")
    page = arrives(Role.VIEWER, tenant, viewport=PHONE, has_touch=True).open("jobs")
    expect(page.get_by_role("button", name="Show")).not_to_be_visible()

    page.get_by_text("Filter", exact=True).tap()
    page.get_by_role("checkbox", name="completed").tap()
    page.get_by_role("button", name="Show").tap()

    expect(page.locator(f"[data-job='{failed}']")).to_have_count(0)
    expect(page.locator(f"[data-job='{completed}']")).to_be_visible()


def test_columns_that_were_chosen_stay(arrives: Arrives, books: Books) -> None:
    visitor = arrives(Role.VIEWER)
    page = visitor.open("jobs")
    expect(page.get_by_role("columnheader", name="Queue")).to_be_visible()

    page.get_by_text("Columns", exact=True).first.click()
    page.locator("details.columns-choice").get_by_label("Queue").uncheck()
    page.get_by_role("button", name="Show these").click()
    expect(page.get_by_role("columnheader", name="Queue")).to_have_count(0)

    visitor.open("jobs", query={"status": "failed"})
    expect(page.get_by_role("columnheader", name="Queue")).to_have_count(0)
    expect(page.get_by_role("columnheader", name="Engine")).to_be_visible()


def test_a_filter_is_saved_and_found_again_and_removed(arrives: Arrives, books: Books) -> None:
    visitor = arrives(Role.VIEWER)
    page = visitor.open("jobs", query={"status": "failed", "tenant": ACME})
    page.get_by_text("Save this filter as …").click()
    page.get_by_role("textbox", name="Name").fill("<i>Failed</i> at acme")
    page.get_by_role("button", name="Save").click()

    page = visitor.open("jobs")
    saved = page.get_by_role("navigation", name="Saved filters")
    saved.get_by_role("link", name="<i>Failed</i> at acme", exact=True).click()
    expect(page).to_have_url(re.compile(r"\?status=failed&tenant=acme$"))
    assert set(page.locator("tbody [data-field=status]").all_inner_texts()) == {"failed"}
    assert problems_of_axe(page) == []
    fits(page, PHONE)

    page.get_by_role("button", name="Remove the filter <i>Failed</i> at acme").click()
    expect(page).to_have_url(re.compile(r"\?status=failed&tenant=acme$"))
    expect(saved).to_have_count(0)


def test_what_is_found_is_downloaded_as_csv(arrives: Arrives, books: Books, tmp_path: Path) -> None:
    page = arrives(Role.OPERATOR).open("jobs", query={"status": "failed", "tenant": ACME})

    with page.expect_download() as waiting:
        page.get_by_role("link", name="Export as CSV").click()
    path = tmp_path / waiting.value.suggested_filename
    waiting.value.save_as(path)

    rows = list(csv.reader(path.read_text(encoding="utf-8-sig").splitlines()))
    assert path.suffix == ".csv"
    cells = {cell for row in rows[1:] for cell in row}
    assert set(books.failed.values()) <= cells
    assert not set(books.completed.values()) & cells


def test_two_tenants_side_by_side_see_their_own(arrives: Arrives, stage: Stage, books: Books) -> None:
    acme, globex = arrives(Role.OPERATOR, ACME), arrives(Role.OPERATOR, GLOBEX)

    for name in ("overview", "jobs", "schedules"):
        assert GLOBEX not in acme.open(name).content()
        theirs = globex.open(name).content()
        assert ACME not in theirs
        assert not any(job_id in theirs for ids in (books.failed, books.running) for job_id in ids.values())
    globex.open("jobs")
    expect(globex.page.locator("tbody tr")).to_have_count(len(stage.rows("tenant = %s", GLOBEX)))
    expect(globex.page.locator(f"[data-job='{books.theirs}']")).to_be_visible()
    for job_id in (books.theirs, "00000000-0000-4000-8000-00000000dead"):
        page = acme.open("job", job_id=job_id)
        expect(page.locator("h1")).to_have_text(f"There is no job {job_id}.")
        assert THEIRS not in page.content()
    for name in ("workers", "tenants", "health"):
        expect(acme.open(name).locator("h1")).to_have_text("There is no such page.")
    assert all("404" in complaint for complaint in acme.complaints)
    acme.complaints.clear()
