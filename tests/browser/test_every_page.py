"""What is true of every page there is: made from the route table."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from jobbridge.core.access import Role
from jobbridge.dashboard.visits import Rule
from tests.browser.books import EVIL, SECRET, Books
from tests.browser.checking import address, overflow, pages, problems_of_axe
from tests.browser.conftest import Arrives
from tests.browser.visitors import PHONE, WIDE

every_page = pytest.mark.parametrize("rule", pages(), ids=lambda rule: rule.name)


@every_page
def test_everybody_can_use_it_by_keyboard_in_the_dark_and_on_a_phone(
    arrives: Arrives, books: Books, rule: Rule
) -> None:
    visitor = arrives(Role.ADMIN)
    page = visitor.open(rule.name, **address(rule, books))
    expect(page.locator("main h1")).to_be_visible()

    if rule.needs is not None:  # the form for signing in has the focus already
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
        page.keyboard.press("Enter")
        assert page.url.endswith("#main")
    assert problems_of_axe(page) == []
    page.emulate_media(color_scheme="dark")
    assert problems_of_axe(page) == [], "in the dark"
    for size in (PHONE, WIDE):
        page.set_viewport_size(size)  # type: ignore[arg-type]  # Playwright's own TypedDict
        assert overflow(page) <= 0, size
    assert visitor.shift() < 0.1 or rule.needs is None
    assert SECRET not in page.content()


@every_page
def test_it_can_be_read_without_javascript(arrives: Arrives, books: Books, rule: Rule) -> None:
    scripted, plain = arrives(Role.ADMIN), arrives(Role.ADMIN, java_script_enabled=False)
    texts = []
    for visitor in (scripted, plain):
        page = visitor.open(rule.name, **address(rule, books))
        expect(page.locator("main h1")).to_be_visible()
        texts.append(page.locator("main h1").inner_text())
        assert page.locator("main").inner_text().count("\n") > 2

    assert texts[0] == texts[1]


def test_what_people_wrote_is_text(arrives: Arrives, books: Books) -> None:
    visitor = arrives(Role.ADMIN)

    page = visitor.open("jobs")

    expect(page.get_by_text(EVIL).first).to_be_visible()
    for engine in books.failed:
        page = visitor.open("job", job_id=books.failed[engine])
        expect(page.get_by_text(f"Invoice 17 has no address. {EVIL}").first).to_be_visible()
        page = visitor.open("job", job_id=books.completed[engine])
        assert SECRET not in page.content()
