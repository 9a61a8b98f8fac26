"""Each difference from Celery that the docs tell of is proven by a test that exists."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "coming-from-celery.md"


def test_each_difference_names_a_test_that_exists() -> None:
    rows = PAGE.read_text().partition("## Other packages")[0].splitlines()
    told = [row for row in rows if row.startswith("| ")][1:]
    assert told
    for row in told:
        named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row)
        assert named, f"no test proves: {row}"
        for path, name in named:
            assert f"def {name}(" in (ROOT / path).read_text(), f"{path} has no {name}"
