"""What is true of every page."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, ViewportSize

from jobbridge.dashboard.access.request_context import Rule
from jobbridge.dashboard.application import RULES
from tests.browser.books import Books
from tests.support import wait_until

#: What answers a program, not a person.
_FOR_PROGRAMS = re.compile(r"^/(api/|metrics|healthz|readyz)|\.(csv|json)$")
#: What only leads elsewhere, downloads, and pieces of pages.
_NOT_PAGES = {"from_the_original", "artifact"}
_SERIOUS = {"serious", "critical"}


def pages() -> Sequence[Rule]:
    """Name the routes that show a page, from the route table: so that a new page is checked too."""
    return [
        rule
        for rule in RULES
        if "GET" in rule.methods
        and not (rule.is_api or rule.is_stream or _FOR_PROGRAMS.search(rule.path) or rule.name in _NOT_PAGES)
    ]


def address(rule: Rule, books: Books) -> dict[str, Any]:
    """Give the parameters of a route's address."""
    return {name: books.example(name) for name in re.findall(r"{(\w+)(?::\w+)?}", rule.path)}


def problems_of_axe(page: Page) -> list[str]:
    """Ask axe what somebody could not use; what is serious or critical."""
    found = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
    return [
        f"{one['impact']} {one['id']}: {one['help']}: {[node['target'] for node in one['nodes'][:3]]}"
        for one in found
        if one["impact"] in _SERIOUS
    ]


def fits(page: Page, size: ViewportSize) -> None:
    """Wait until nothing is wider than the window: charts are drawn anew for it."""
    page.set_viewport_size(size)

    def fitting() -> bool:
        if wide := _too_wide(page):
            raise AssertionError(f"{page.url} in {size}: {wide}")
        return True

    wait_until(fitting, timeout=3, every=0.1)


def _too_wide(page: Page) -> list[str]:
    """Name what makes the page wider than the window. (Playwright's own waiting needs `eval`, which pages forbid.)"""
    found = page.evaluate(
        """() => {
            const width = document.documentElement.clientWidth;
            if (document.documentElement.scrollWidth <= width) return [];
            const wide = [...document.querySelectorAll('body *')].filter(
                one => one.getBoundingClientRect().right > width && !one.closest('.wide table, .pages a'));
            return ['too wide', ...wide.slice(0, 5).map(one => `${one.localName}.${one.className}#${one.id}`)];
        }"""
    )
    return list(found)
