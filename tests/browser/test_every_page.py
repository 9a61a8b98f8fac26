"""What is true of every page there is: made from the route table."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from jobbridge.dashboard.access.request_context import Rule
from tests.browser.books import EVIL, SECRET, Books
from tests.browser.checking import address, fits, pages, problems_of_axe
from tests.browser.visitors import DESK, PHONE, WIDE, Visitor

every_page = pytest.mark.parametrize("rule", pages(), ids=lambda rule: rule.name)


@every_page
def test_everybody_can_use_it_by_keyboard_in_the_dark_and_on_a_phone(
    reader: Visitor, books: Books, rule: Rule
) -> None:
    page = reader.open(rule.name, **address(rule, books))
    expect(page.locator("main h1")).to_be_visible()

    if rule.needs is not None:  # the form for signing in has the focus already
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page).to_have_url(re.compile("#main$"))
    assert problems_of_axe(page) == []
    page.emulate_media(color_scheme="dark")
    assert problems_of_axe(page) == [], "in the dark"
    reader.stands_still()
    for size in (PHONE, WIDE):
        fits(page, size)
    page.set_viewport_size(DESK)
    page.emulate_media(color_scheme="light")
    assert SECRET not in page.content()
    assert not re.search(r"&(#\d+|lt|gt|amp|quot);", page.locator("main").inner_text()), "escaped twice"


@every_page
def test_it_can_be_read_without_javascript(plain_reader: Visitor, books: Books, rule: Rule) -> None:
    page = plain_reader.open(rule.name, **address(rule, books))

    expect(page.locator("main h1")).to_be_visible()
    assert page.locator("main").inner_text().count("\n") > 2


def test_what_people_wrote_is_text(reader: Visitor, books: Books) -> None:
    page = reader.open("jobs", query={"type": EVIL})

    expect(page.locator("tbody").get_by_text(EVIL).first).to_be_visible()
    for engine in books.failed:
        page = reader.open("job", job_id=books.failed[engine])
        expect(page.get_by_text(f"Invoice 17 has no address. {EVIL}").first).to_be_visible()
        page = reader.open("job", job_id=books.completed[engine])
        assert SECRET not in page.content()
