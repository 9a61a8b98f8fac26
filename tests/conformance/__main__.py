"""Writes docs/conformance.md: `python -m tests.conformance`."""

from __future__ import annotations

from tests.conformance.document import DOCUMENT, collected_tests, read_claims, rendered

if __name__ == "__main__":
    DOCUMENT.write_text(rendered(read_claims(), collected_tests()), encoding="utf-8")
    print(f"Wrote {DOCUMENT}.")
