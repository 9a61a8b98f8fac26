"""The documentation says of each error what to do, and has a place for each page."""

from __future__ import annotations

import inspect
import re
from importlib import import_module

import pytest
import yaml

from jobbridge.broker.errors import BrokerError
from jobbridge.errors import JobBridgeError
from tests.docs.blocks import DOCS, pages
from tests.support import REPOSITORY

#: Where errors that anybody may meet are; those of the shipped handlers say in their messages what to correct.
MODULES = (
    "jobbridge.errors",
    "jobbridge.app.errors",
    "jobbridge.broker.errors",
    "jobbridge.dev.process",
    "jobbridge.temporal.schedules.mirror",
    "jobbridge.temporal.wire.messages",
)


def errors_of(module: str) -> list[type[Exception]]:
    found = inspect.getmembers(import_module(module), inspect.isclass)
    return [
        error
        for _, error in found
        if issubclass(error, JobBridgeError | BrokerError) and error.__module__ == module
    ]


@pytest.mark.parametrize("module", MODULES)
def test_every_error_has_its_place(module: str) -> None:
    titles = set(re.findall(r"^#{2,3} (\w+)$", (DOCS / "errors.md").read_text(), re.MULTILINE))
    assert (errors := errors_of(module))
    assert sorted(error.__name__ for error in errors if error.__name__ not in titles) == []


def test_the_page_of_errors_names_none_that_is_gone() -> None:
    titles = re.findall(r"^### (\w+)$", (DOCS / "errors.md").read_text(), re.MULTILINE)
    there = {error.__name__ for module in MODULES for error in errors_of(module)}
    assert [title for title in titles if title not in there] == []


def test_every_page_is_in_the_navigation() -> None:
    text = (REPOSITORY / "mkdocs.yml").read_text()
    named = set(re.findall(r"\b[\w/-]+\.md\b", str(yaml.safe_load(text)["nav"])))
    assert set(pages()) - named == set()
    assert {page for page in named if not (DOCS / page).is_file()} == set()
