"""Pages follow the jobs without being loaded again."""

from __future__ import annotations

from playwright.sync_api import Page, expect

from jobbridge.core.access import Role
from jobbridge.core.keys import Engine
from tests.browser.conftest import Arrives
from tests.browser.stage import ACME, GLOBEX, Stage
from tests.browser.test_actions import a_tenant
from tests.browser.visitors import DESK, Visitor


def is_live(visitor: Visitor, name: str, **parameters: str) -> Page:
    """Open a page, wait until it is live, and mark it: a page that is loaded again loses the mark."""
    page = visitor.open(name, **parameters)
    expect(page.locator("[data-live]")).to_have_text("Live")
    page.evaluate("window.isTheSamePage = true")
    return page


def is_the_same(page: Page) -> bool:
    return bool(page.evaluate("window.isTheSamePage === true"))


def shown(page: Page, count: str) -> int:
    return int("".join(filter(str.isdigit, page.locator(f"[data-count='{count}']").first.inner_text())))


def test_a_job_appears_runs_and_ends_before_the_readers_eyes(
    arrives: Arrives, stage: Stage, engine: Engine
) -> None:
    visitor = arrives(Role.VIEWER, tenant := a_tenant())
    page = is_live(visitor, "jobs")

    job_id = stage.send("report", {}, engine=engine, tenant=tenant)
    row = page.locator(f"[data-job='{job_id}']")
    status = row.locator("[data-field=status]")
    expect(status).to_have_text("processing")
    stage.release(job_id)
    expect(status).to_have_text("completed")

    assert is_the_same(page)
    visitor.stands_still()


def test_the_overviews_numbers_agree_with_sql_while_jobs_come_and_go(arrives: Arrives, stage: Stage) -> None:
    visitor = arrives(Role.VIEWER, tenant := a_tenant())
    page = is_live(visitor, "overview")
    assert shown(page, "completed") == 0

    for number in range(10):
        for engine in Engine:
            stage.send("bill", {"number": 17 if number == 3 else number}, engine=engine, tenant=tenant)
    expect(page.locator("[data-count='completed']").first).to_have_text("18")
    expect(page.locator("[data-count='failed']").first).to_have_text("2")
    # The page is read anew the less often the longer that takes, every ten seconds at least.
    expect(page.get_by_role("region", name="Failures of the last")).to_contain_text(
        "Invoice 17 has no address.", timeout=30_000
    )

    for engine in Engine:
        for status in ("completed", "failed", "queued", "processing"):
            rows = stage.rows("tenant = %s AND status = %s AND runner_type = %s", tenant, status, engine)
            expect(page.locator(f"[data-count='{engine}:{status}']").first).to_have_text(str(len(rows)))
    assert is_the_same(page)
    visitor.stands_still()


def test_nobody_is_told_of_another_tenants_jobs(arrives: Arrives, stage: Stage) -> None:
    acme, globex = arrives(Role.VIEWER, ACME), arrives(Role.VIEWER, GLOBEX)
    theirs = is_live(globex, "jobs")
    before = theirs.locator("tbody tr").count()
    ours = is_live(acme, "jobs")

    job_id = stage.send("keep", {"note": "ours"}, engine=Engine.CELERY, tenant=ACME)
    expect(ours.locator(f"[data-job='{job_id}'] [data-field=status]")).to_have_text("completed")

    assert theirs.locator("tbody tr").count() == before
    assert job_id not in theirs.content()


def test_a_jobs_page_follows_its_progress(arrives: Arrives, stage: Stage, engine: Engine) -> None:
    job_id = stage.send("report", {}, engine=engine, tenant=ACME)
    stage.tell(job_id, 5)
    stage.wait_for(job_id, "processing")
    visitor = arrives(Role.VIEWER, ACME)
    page = is_live(visitor, "job", job_id=job_id)

    for progress in (25, 75):
        stage.tell(job_id, progress)
        expect(page.get_by_text(f"page {progress} of 100").first).to_be_visible()
    stage.release(job_id)
    expect(page.locator("h1")).to_contain_text("completed")

    assert is_the_same(page)
    visitor.stands_still()


def test_a_jobs_page_stands_still_when_the_job_ends(arrives: Arrives, stage: Stage, engine: Engine) -> None:
    job_id = stage.send("report", {}, engine=engine, tenant=ACME)
    stage.tell(job_id, 5)
    stage.wait_for(job_id, "processing")
    visitor = arrives(Role.OPERATOR, ACME, viewport=DESK)
    page = is_live(visitor, "job", job_id=job_id)

    stage.release(job_id)
    expect(page.get_by_role("button", name="Run again")).to_be_visible()

    visitor.stands_still(most=0.02)


def test_a_long_error_makes_no_row_higher(arrives: Arrives, stage: Stage) -> None:
    visitor = arrives(Role.OPERATOR, tenant := a_tenant())
    page = is_live(visitor, "jobs")
    stage.wait_for(stage.send("bill", {"number": 1}, engine=Engine.CELERY, tenant=tenant), "completed")
    note = "A very long story. " * 200
    failed = stage.send("bill", {"number": 17, "note": note}, engine=Engine.CELERY, tenant=tenant)
    expect(page.locator(f"[data-job='{failed}'] [data-field=error]")).to_contain_text("A very long story.")
    expect(page.locator("tr[data-job]")).to_have_count(2)

    heights = page.locator("tr[data-job]").evaluate_all("rows => rows.map(row => row.offsetHeight)")

    assert max(heights) - min(heights) <= 6, heights
    visitor.stands_still(most=0.02)


def test_tenants_come_by_themselves(arrives: Arrives, stage: Stage) -> None:
    page = is_live(arrives(Role.VIEWER), "tenants")

    stage.send("keep", {}, engine=Engine.CELERY, tenant=(tenant := a_tenant()))

    expect(page.get_by_role("link", name=tenant)).to_be_visible()
    assert is_the_same(page)


def test_a_schedule_that_somebody_pauses_tells_so(arrives: Arrives, stage: Stage) -> None:
    create = stage.app.schedules.create
    handle = create("shop.keep", "0 3 * * *", {}, name="nightly", tenant=(tenant := a_tenant()))
    visitor = arrives(Role.VIEWER, tenant)
    page = is_live(visitor, "schedule", schedule_id=str(handle.schedule_id))
    expect(page.locator("[data-viewer-time]")).to_have_count(5)

    stage.app.schedules.run_now(handle.schedule_id, tenant)
    expect(page.get_by_role("region", name="Last fires").locator("tbody tr")).to_have_count(1)
    expect(page.locator("[data-viewer-time]").first).to_be_visible()
    stage.app.schedules.pause(handle.schedule_id, tenant)
    stage.send("keep", {}, engine=Engine.CELERY, tenant=tenant)

    expect(page.get_by_text("None while it is paused.")).to_be_visible()
    expect(page.locator("h1")).to_contain_text("paused")
    assert is_the_same(page)
    visitor.stands_still()


def test_times_go_on_also_where_nothing_is_live(arrives: Arrives) -> None:
    visitor = arrives(Role.ADMIN)
    visitor.page.clock.install()
    page = visitor.open("access")
    first = page.locator("tbody time").first
    before = first.inner_text()

    page.clock.fast_forward("03:00:00")

    expect(first).to_have_text("3 h ago")
    assert before != "3 h ago"
