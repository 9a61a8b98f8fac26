"""Chromium as these tests use it: Debian's, driven by Playwright."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

VARIABLE = "JOBBRIDGE_CHROMIUM"
#: First the one without windows: half the processor time of the whole browser's headless mode.
_NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
#: Nothing that a browser does by itself, and what it needs to run as root in a container.
_ARGUMENTS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--force-color-profile=srgb",
)  # fmt: skip


class NoChromium(Exception):
    """There is no browser to test with."""

    def __init__(self) -> None:
        super().__init__(
            "The browser tests need Chromium, and there is none. Install it: `apt-get install chromium-headless-shell`"
            " (`make setup` does that for root on Debian; on Ubuntu it is `chromium`), or `.venv/bin/playwright install"
            f" --with-deps chromium`; or name one: {VARIABLE}=/path/to/chromium."
        )


def find_chromium(*, playwrights_own: str) -> str:
    """Give the browser that was named, else the one on the PATH, else Playwright's own.

    Args:
        playwrights_own: Where Playwright would have put one.

    Raises:
        NoChromium: There is none.
    """
    named = os.environ.get(VARIABLE)
    found = [named] if named else [shutil.which(name) for name in _NAMES]
    path = next(filter(None, found), playwrights_own)
    if shutil.which(path) is None and not Path(path).is_file():
        raise NoChromium
    return path


@contextmanager
def run_chromium() -> Iterator[Browser]:
    """Run a browser with a fresh profile, until the block ends."""
    with sync_playwright() as playwright:
        path = find_chromium(playwrights_own=playwright.chromium.executable_path)
        browser = playwright.chromium.launch(executable_path=path, args=list(_ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()
