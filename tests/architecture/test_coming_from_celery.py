"""Each difference from Celery that the docs tell of is proven by a test that exists."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
PAGE = ROOT / "docs" / "coming-from-celery.md"


def test_each_difference_names_a_test_that_exists() -> None:
    rows = PAGE.read_text().partition("## Other packages")[0].splitlines()
    told = [row for row in rows if row.startswith("| ")][1:]
    assert told
    for row in told:
        assert NAMED.search(row), f"no test proves: {row}"


def test_each_test_that_a_page_names_exists() -> None:
    """Also of other packages, and wherever else the docs say that something is proven."""
    for page in sorted((ROOT / "docs").rglob("*.md")):
        for path, name in NAMED.findall(page.read_text()):
            assert f"def {name}(" in (ROOT / path).read_text(), f"{page.name} names {path}::{name}"
