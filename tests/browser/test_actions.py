"""What people do to jobs by hand, on both engines."""

from __future__ import annotations

import json
import re
import subprocess
import uuid

from playwright.sync_api import expect

from jobbridge.core.access import Role
from jobbridge.core.keys import Engine, TenantId
from jobbridge.store.access.tokens import AccessStore
from tests.browser.books import EVIL, SECRET, Books
from tests.browser.checking import problems_of_axe
from tests.browser.conftest import Arrives
from tests.browser.stage import ACME, Stage
from tests.forked import run_python
from tests.support import clean_environment, wait_until


def a_tenant() -> TenantId:
    """Give a tenant of this test alone, so that a filter finds its jobs and no others."""
    return TenantId(f"tenant-{uuid.uuid4().hex[:8]}")


def outcomes(stage: Stage, subject: str) -> list[tuple[str, str, str | None]]:
    actions = AccessStore(stage.app.database).actions()
    return [(one.action, one.outcome, one.reason) for one in actions if one.subject == subject]


def test_a_failed_jobs_reason_is_two_clicks_away(
    arrives: Arrives, stage: Stage, books: Books, engine: Engine
) -> None:
    tenant = a_tenant()
    failed = stage.send("bill", {"number": 17, "note": "Ask the client."}, engine=engine, tenant=tenant)
    stage.wait_for(failed, "failed")
    page = arrives(Role.VIEWER, tenant).open("overview")

    page.get_by_role("region", name="Failures of the last").get_by_role("link").first.click()
    if failed not in page.url:
        page.get_by_role("table").get_by_role("link", name="shop.bill").first.click()

    expect(page).to_have_url(re.compile(failed))
    expect(page.locator("main")).to_contain_text("Invoice 17 has no address. Ask the client.")
    assert page.get_by_text("Invoice 17 has no address").first.bounding_box()["y"] < 600


def test_a_running_job_is_cancelled_with_a_reason(arrives: Arrives, stage: Stage, engine: Engine) -> None:
    running = stage.send("report", {}, engine=engine)
    stage.tell(running, 10)
    stage.wait_for(running, "processing")
    page = arrives(Role.OPERATOR).open("job", job_id=running)

    page.get_by_role("textbox", name="Reason").fill(f"wrong month {EVIL}")
    page.get_by_role("button", name="Cancel", exact=True).click()

    expect(page.locator("h1")).to_contain_text("cancelled")
    expect(page.get_by_text(f"wrong month {EVIL}").first).to_be_visible()
    row = stage.wait_for(running, "cancelled")
    assert row["cancel_reason"] == f"wrong month {EVIL}"
    assert outcomes(stage, running) == [("cancel", "done", f"wrong month {EVIL}")]


def test_what_is_typed_stays_while_the_job_goes_on(arrives: Arrives, stage: Stage) -> None:
    running = stage.send("report", {}, engine=Engine.CELERY)
    stage.tell(running, 10)
    page = arrives(Role.OPERATOR).open("job", job_id=running)
    expect(page.locator("h1")).to_contain_text("processing")
    expect(page.locator("[data-live]")).to_have_text("Live")

    page.get_by_role("textbox", name="Reason").press_sequentially("wrong")
    stage.tell(running, 55)
    expect(page.get_by_text("page 55 of 100").first).to_be_visible()
    stage.tell(running, 60)
    expect(page.get_by_text("page 60 of 100").first).to_be_visible()
    asked = "performance.getEntriesByType('resource').some(one => one.initiatorType === 'xmlhttprequest')"
    wait_until(lambda: page.evaluate(asked), timeout=15, message="the page is fetched again")

    expect(page.get_by_role("textbox", name="Reason")).to_have_value("wrong")
    expect(page.get_by_role("textbox", name="Reason")).to_be_focused()
    expect(page.get_by_role("button", name=f"Copy: jobbridge explain {running}")).to_have_count(1)
    stage.release(running)
    expect(page.locator("h1")).to_contain_text("completed")
    expect(page.get_by_role("button", name="Cancel", exact=True)).to_have_count(0)


def test_a_failed_job_is_retried(arrives: Arrives, stage: Stage, engine: Engine) -> None:
    failed = stage.send("bill", {"number": 17}, engine=engine)
    stage.wait_for(failed, "failed")
    page = arrives(Role.OPERATOR).open("job", job_id=failed)

    page.get_by_role("button", name="Retry", exact=True).click()

    expect(page).to_have_url(re.compile(failed))
    expect(page.get_by_role("table").first).to_contain_text("2")
    assert stage.wait_for(failed, "failed")["attempt"] == 2


def test_a_job_is_run_again_with_other_data_and_its_secrets(
    arrives: Arrives, stage: Stage, books: Books, engine: Engine
) -> None:
    visitor = arrives(Role.OPERATOR)
    page = visitor.open("job", job_id=books.completed[engine])
    page.get_by_role("link", name="Run again with other data").click()
    expect(page.locator("h1")).to_contain_text("with other data")
    assert SECRET not in page.content()

    page.get_by_label("Data, as JSON").fill("{ no json")
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_role("alert")).to_be_visible()
    expect(page.get_by_label("Data, as JSON")).to_have_value("{ no json")
    visitor.complaints.clear()  # the status 4xx
    visitor.open("edit", job_id=books.completed[engine])
    data = json.loads(page.get_by_label("Data, as JSON").input_value())
    page.get_by_label("Data, as JSON").fill(json.dumps(data | {"more": "of it"}))
    page.get_by_role("button", name="Send").click()

    expect(page).not_to_have_url(re.compile(f"{books.completed[engine]}|edit"))
    sent = re.search(r"/jobs/([0-9a-f-]{36})", page.url)
    assert sent is not None
    result = stage.wait_for(sent[1], "completed")["result"]
    assert (result["more"], result["password"]) == ("of it", SECRET)


def test_data_that_does_not_fit_the_handler_is_told_beside_the_text(
    arrives: Arrives, stage: Stage, books: Books
) -> None:
    visitor = arrives(Role.OPERATOR)
    page = visitor.open("edit", job_id=books.failed[Engine.CELERY])

    page.get_by_label("Data, as JSON").fill('{"number": "many"}')
    page.get_by_role("button", name="Send").click()

    expect(page.get_by_role("alert")).to_contain_text("number")
    expect(page.get_by_label("Data, as JSON")).to_have_value('{"number": "many"}')
    assert all(re.search(r"\b4\d\d\b", complaint) for complaint in visitor.complaints)
    visitor.complaints.clear()


def test_many_are_cancelled_after_their_number_was_shown(arrives: Arrives, stage: Stage) -> None:
    tenant = a_tenant()
    waiting = [
        stage.send("bill", {"number": number}, engine=engine, tenant=tenant, queue="nobody-serves-this")
        for number in range(3)
        for engine in Engine
    ]
    done = stage.send("bill", {"number": 9}, engine=Engine.CELERY, tenant=tenant)
    stage.wait_for(done, "completed")
    page = arrives(Role.OPERATOR).open("jobs", query={"tenant": tenant})

    page.get_by_label("all that match this filter").check()
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("h1")).to_have_text("Cancel 6 jobs?")
    assert problems_of_axe(page) == []
    page.get_by_role("textbox", name="Reason").fill("the customer left")
    page.get_by_role("button", name="Cancel 6 jobs").click()

    expect(page.locator("h1")).to_have_text("6 jobs cancelled")
    assert problems_of_axe(page) == []
    rows = stage.rows("tenant = %s", tenant)
    assert {str(row["job_id"]) for row in rows if row["status"] == "cancelled"} == set(waiting)
    assert {row["cancel_reason"] for row in rows if row["status"] == "cancelled"} == {"the customer left"}
    page.get_by_role("link", name="Back to the jobs").click()
    expect(page).to_have_url(re.compile(f"tenant={tenant}"))


def test_those_that_are_selected_are_retried_without_javascript(arrives: Arrives, stage: Stage) -> None:
    tenant = a_tenant()
    failed = [stage.send("bill", {"number": 17}, engine=engine, tenant=tenant) for engine in Engine]
    other = stage.send("bill", {"number": 17}, engine=Engine.CELERY, tenant=tenant)
    for job_id in (*failed, other):
        stage.wait_for(job_id, "failed")
    page = arrives(Role.OPERATOR, tenant, java_script_enabled=False).open("jobs")

    for job_id in failed:
        page.get_by_label(f"Select shop.bill {job_id}").check()
    page.get_by_role("button", name="Retry").click()
    expect(page.locator("h1")).to_have_text("Retry 2 jobs?")
    page.get_by_role("button", name="Retry 2 jobs").click()

    expect(page.locator("h1")).to_have_text("2 jobs sent again")
    for job_id in failed:
        assert stage.wait_for(job_id, "failed", "queued", "processing")["job_id"]
    assert stage.row(other)["attempt"] == 1


def test_a_viewer_is_offered_no_action(arrives: Arrives, books: Books) -> None:
    visitor = arrives(Role.VIEWER)
    for name, parameters in (("jobs", {}), ("job", {"job_id": books.failed[Engine.CELERY]})):
        page = visitor.open(name, **parameters)
        expect(page.locator("main h1")).to_be_visible()
        assert page.locator("main form[method=post]").count() == 0, name


def test_an_action_is_reached_by_the_keyboard_alone(arrives: Arrives, stage: Stage) -> None:
    waiting = stage.send("bill", {"number": 1}, engine=Engine.CELERY, tenant=ACME, queue="nobody-serves-this")
    page = arrives(Role.OPERATOR).open("job", job_id=waiting)

    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # past the navigation
    for _ in range(15):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.name") == "reason":
            break
    page.keyboard.type("by hand")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")

    expect(page.locator("h1")).to_contain_text("cancelled")
    assert stage.row(waiting)["cancel_reason"] == "by hand"


def test_the_commands_of_a_page_run_as_they_were_copied(
    arrives: Arrives, stage: Stage, engine: Engine
) -> None:
    failed = stage.send("bill", {"number": 17, "note": (note := f"it's {engine}")}, engine=engine)
    stage.wait_for(failed, "failed")
    page = arrives(Role.OPERATOR).open("job", job_id=failed)

    shown = page.get_by_role("region", name="Facts").locator("code[data-copy]").all_inner_texts()
    ran = {}
    for command in shown:
        ran[command] = _in_a_shell(command, stage)
        stage.wait_for(failed, "failed")

    assert {command.split()[1] for command in shown} == {"explain", "jobs", "enqueue"}
    assert {command: told.stderr for command, told in ran.items() if told.returncode} == {}
    again = stage.rows("type = 'shop.bill' AND metadata->'data'->>'note' = %s", note)
    assert [row["runner_type"] for row in again] == [engine] * 3, "with --new, and with the same data"


def _in_a_shell(command: str, stage: Stage) -> subprocess.CompletedProcess[str]:
    """Have a shell take it apart, and run what it would run."""
    told = subprocess.run(
        f"jobbridge() {{ printf '%s\\0' \"$@\"; }}; {command}",
        shell=True,
        capture_output=True,
        text=True,
        check=True,
    )
    arguments = told.stdout.split("\0")[:-1]
    return run_python(["-m", "jobbridge.cli", *arguments], env=clean_environment(stage.environment))
