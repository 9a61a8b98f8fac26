"""Workers and queues by hand: what runs where, and a queue that is paused on both engines."""

from __future__ import annotations

import time

from playwright.sync_api import expect

from jobbridge.core.access import Role
from jobbridge.core.keys import Engine
from tests.browser.books import EVIL, Books
from tests.browser.conftest import Arrives
from tests.browser.stage import ACME, Stage
from tests.browser.visitors import Visitor
from tests.support import wait_until


def test_each_worker_is_there_with_what_it_runs(reader: Visitor, books: Books) -> None:
    page = reader.open("workers")

    workers = page.get_by_role("region", name="Workers", exact=True).last
    for engine in Engine:
        row = (
            workers.get_by_role("row")
            .filter(has=page.get_by_role("cell", name=engine.value, exact=True))
            .first
        )
        expect(row).to_contain_text("alive")
        expect(row.get_by_role("link", name="shop.report").first).to_be_visible()


def test_a_queue_that_nobody_serves_says_what_waits(reader: Visitor, books: Books) -> None:
    page = reader.open("workers")

    queue = page.locator("tbody").filter(has_text="nobody-serves-this")
    expect(queue).to_contain_text("nobody serves it")
    queue.get_by_role("link", name="nobody-serves-this").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("nobody serves it")
    page.get_by_role("link", name="Its jobs").click()
    expect(page.locator("tbody [data-field=status]").first).to_be_visible()
    assert "queue=nobody-serves-this" in page.url


def test_a_paused_queue_waits_on_both_engines_until_it_is_resumed(arrives: Arrives, stage: Stage) -> None:
    visitor = arrives(Role.OPERATOR)
    page = visitor.open("workers")
    queue = page.locator("table.queues tbody").filter(has=page.get_by_role("link", name="celery", exact=True))
    queue.get_by_text("Pause …").click()
    queue.get_by_role("textbox", name="Note").fill(f"the printer is away {EVIL}")
    queue.get_by_role("button", name="Pause celery").click()
    try:
        expect(queue).to_contain_text(f"the printer is away {EVIL}")
        held = [wait_until(lambda engine=engine: one_that_waits(stage, engine)) for engine in Engine]
        for job_id in held:
            visitor.open("job", job_id=job_id)
            expect(page.locator("main")).to_contain_text("paused")
            expect(page.locator("main")).to_contain_text(f"the printer is away {EVIL}")
    finally:
        visitor.open("workers")
        queue.get_by_role("button", name="Resume celery").click()
        expect(queue).to_contain_text("served")

    for job_id in held:
        stage.wait_for(job_id, "completed")


def one_that_waits(stage: Stage, engine: Engine) -> str:
    """Send a job, and give its id if it does not start: workers hear of a pause within two seconds."""
    job_id = stage.send("bill", {"number": 1}, engine=engine, tenant=ACME)
    until = time.monotonic() + 1.5
    while time.monotonic() < until:
        if stage.row(job_id)["status"] in {"processing", "completed"}:
            return ""
    return job_id
