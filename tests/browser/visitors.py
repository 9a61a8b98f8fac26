"""Somebody with a browser. What their browser complains of fails the test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Page, ViewportSize, expect

from tests.browser.stage import Stage

PHONE: ViewportSize = {"width": 390, "height": 844}
DESK: ViewportSize = {"width": 1280, "height": 900}
WIDE: ViewportSize = {"width": 1920, "height": 1080}

#: Live pages are fetched again every ten seconds at most.
expect.set_options(timeout=12_000)

#: From here on a layout shift is not "good" any more (web.dev, "Cumulative Layout Shift").
MOST_SHIFT = 0.1

#: Runs before anything of the page; what it prints comes to `_listen`.
WATCH = """
addEventListener('securitypolicyviolation', event =>
    console.error(`CSP: ${event.violatedDirective} ${event.blockedURI} ${event.sourceFile || ''}`));
window.shifts = [];
if (window.PerformanceObserver)
    new PerformanceObserver(list => {
        for (const entry of list.getEntries())
            if (!entry.hadRecentInput) window.shifts.push({
                by: entry.value,
                of: entry.sources.map(({node}) => node && (node.id || node.className || node.nodeName)).join(),
            });
    }).observe({type: 'layout-shift', buffered: true});
"""
#: A page that was left in the middle of a request says so.
_HARMLESS = ("net::ERR_ABORTED", "ERR_NETWORK_CHANGED")


@dataclass
class Visitor:
    """A browser of one person: its own cookies, one page.

    Attributes:
        complaints: What the browser said against the pages. Emptied by a test that wants them.
    """

    stage: Stage
    context: BrowserContext
    page: Page
    complaints: list[str] = field(default_factory=list)

    def open(self, name: str, *, query: dict[str, Any] | None = None, **params: Any) -> Page:
        """Open a page by its route's name."""
        self.page.goto(self.stage.path(name, query=query, **params), wait_until="domcontentloaded")
        return self.page

    def stands_still(self, *, most: float = MOST_SHIFT) -> None:
        """Check that things have not moved by themselves since the page was opened, as Google's Web Vitals count it.

        News that come in move things, once. A page that moves by itself does so each time that it is opened.
        """
        shifts = self._shifts()
        if _sum(shifts) >= most:
            self.page.reload(wait_until="load")
            self.page.evaluate("document.fonts.ready.then(() => new Promise(requestAnimationFrame))")
            again = self._shifts()
            if _sum(again) >= most:
                raise AssertionError(
                    f"{self.page.url} moved: {shifts}, and when it was opened again: {again}"
                )

    def _shifts(self) -> list[dict[str, Any]]:
        return list(self.page.evaluate("window.shifts"))


def _sum(shifts: list[dict[str, Any]]) -> float:
    return sum(float(shift["by"]) for shift in shifts)


@contextmanager
def visit(browser: Browser, stage: Stage, cookie: dict[str, Any] | None, **options: Any) -> Iterator[Visitor]:
    """Open a browser window for somebody, until the block ends, and check that the browser was content."""
    context = browser.new_context(
        **{"viewport": DESK, "locale": "en-GB", "reduced_motion": "reduce", **options}
    )
    context.set_default_timeout(15_000)
    if cookie is not None:
        context.add_cookies([cookie])
    context.add_init_script(WATCH)
    visitor = Visitor(stage, context, context.new_page())
    _listen(visitor)
    try:
        yield visitor
        if visitor.complaints:
            raise AssertionError(f"the browser says: {visitor.complaints}")
    finally:
        context.close()


def _listen(visitor: Visitor) -> None:
    def note(text: str) -> None:
        if not any(part in text for part in _HARMLESS):
            visitor.complaints.append(text)

    page = visitor.page
    page.on("console", lambda message: note(message.text) if message.type in {"error", "warning"} else None)
    page.on("pageerror", lambda error: note(f"script: {error}"))
    page.on(
        "response", lambda answer: note(f"{answer.status} {answer.url}") if answer.status >= 500 else None
    )
    # Nothing of ours asks by a dialog: one means that somebody's text was run as a script.
    page.on("dialog", lambda dialog: (note(f"dialog: {dialog.message}"), dialog.dismiss()))
