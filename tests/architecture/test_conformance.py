"""docs/conformance.md says what the tests prove: no claim without a test, none that is not there."""

from __future__ import annotations

import pytest

from tests.conformance.document import (
    DOCUMENT,
    Claim,
    ConformanceError,
    by_name,
    collected_tests,
    problems,
    read_claims,
    rendered,
)
from tests.conftest import EVERYTHING


@pytest.fixture
def tests_that_there_are(pytestconfig: pytest.Config) -> dict[str, set[str]]:
    """What this run collected, if that is everything: to ask again takes as long as twenty tests."""
    if found := pytestconfig.stash.get(EVERYTHING, None):
        return by_name(found)
    return collected_tests()


def test_the_page_is_what_the_claims_and_the_tests_give(tests_that_there_are: dict[str, set[str]]) -> None:
    page = rendered(read_claims(), tests_that_there_are)
    assert DOCUMENT.read_text(encoding="utf-8") == page, "Run `make conformance`."


def test_a_claim_without_a_test_or_with_one_that_is_not_there_is_found() -> None:
    tests = {
        "a.py::test_both": {"celery", "temporal"},
        "a.py::test_one": {"celery"},
        "a.py::test_plain": {""},
    }

    def found(**values: object) -> list[str]:
        return problems([Claim(section="s", text="t", **values)], tests)

    assert found(tests={"both": ("a.py::test_both",)}) == []
    assert found(tests={"celery": ("a.py::test_plain",)}, reasons={"temporal": "not its business"}) == []
    assert "neither" in found(tests={"celery": ("a.py::test_plain",)})[0]
    assert "which there is not" in found(tests={"both": ("a.py::test_gone",)})[0]
    assert "does not run on temporal" in found(tests={"both": ("a.py::test_one",)})[0]
    with pytest.raises(ConformanceError):
        rendered([Claim(section="s", text="t")], tests)
