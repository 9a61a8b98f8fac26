"""How the house is cut and named: see the rule in docs/decisions/0019-the-status-machine-is-one-table.md."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from tests.architecture.test_guards import texts, tracked
from tests.support import REPOSITORY

#: Words for which the field has a better one. No path has them, nor a public name, nor an alias of a module. Tables
#: that databases have (`TABLES`) keep theirs, and so does a role of the dashboard, `viewer`.
POETIC = frozenset({
    "audience", "checkup", "families", "family", "hosted", "hosting", "intake", "kin", "kinship", "moments",
    "relatives", "straggler", "stragglers", "unattended", "viewers", "visit", "visits",
})  # fmt: skip
#: Fine as words, but no names for modules: they do not say of what. A gerund is a hint that the noun was not found.
VAGUE = frozenset({
    "acting", "answers", "asking", "callers", "cells", "counting", "data", "describing", "enveloping",
    "fanning", "finding", "folding",
    "gate", "helpers", "holding", "host", "info", "instants", "looking", "manager", "misc", "offering", "own",
    "possible", "producing", "running", "sending", "serving", "showing", "suspects", "telling", "utils", "waiting",
})  # fmt: skip
TABLES = {"job_families", "job_family_members"}
#: Where each file is one command, or one handler.
MAY_BE_WIDE = {"jobbridge/cli", "jobbridge/handlers"}
MOST_FILES, MOST_LINES, MEDIAN_LINES = 16, 400, 150


def modules() -> list[str]:
    return [name for name in tracked() if name.startswith("jobbridge/") and name.endswith(".py")]


def trees() -> Iterator[tuple[str, ast.Module]]:
    for name in modules():
        yield name, ast.parse((REPOSITORY / name).read_text(encoding="utf-8"))


def words_of(name: str) -> set[str]:
    """`SomeName`, `some_name` and `SOME_NAME` in words."""
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)
    return set(apart.lower().split("_"))


def public_names(tree: ast.Module) -> Iterator[str]:
    """What others may call a thing by: functions, classes, methods, attributes, constants."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        for each in node.body if isinstance(node, ast.Module | ast.ClassDef) else ():
            match each:
                case ast.AnnAssign(target=ast.Name(id=name)) | ast.Assign(targets=[ast.Name(id=name)]):
                    yield name


def test_no_path_has_a_word_that_does_not_tell() -> None:
    code = [name for name in tracked() if name.startswith(("jobbridge/", "tests/")) and name.endswith(".py")]
    parts = {name: Path(name).with_suffix("").parts for name in code}
    poetic = [name for name, own in parts.items() if any(words_of(part) & POETIC for part in own)]
    assert poetic == []
    vague = [name for name, own in parts.items() if name.startswith("jobbridge/") and set(own) & VAGUE]
    assert vague == []


def test_no_public_name_has_one() -> None:
    found = [
        f"{module}: {name}"
        for module, tree in trees()
        for name in public_names(tree)
        if not name.startswith("_") and name not in TABLES and words_of(name) & POETIC
    ]
    assert found == []


def test_a_module_is_imported_under_no_such_name() -> None:
    aliases = [
        f"{module}: {node.asname}"
        for module, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.alias) and node.asname and words_of(node.asname) & (POETIC | VAGUE)
    ]
    assert aliases == []


def test_the_dashboard_speaks_as_its_field_does() -> None:
    shown = [
        (name, text)
        for name, text in texts(".html", "charts.js", "views/columns.py")
        if name.startswith("jobbridge/dashboard/")
    ]
    homely = re.compile(r"became of|half of them|half within|[>\"]Made[<\"]|[>\"]Waited[<\"]|[>\"]Ran[<\"]")
    assert shown
    assert [name for name, text in shown if homely.search(text)] == []


def test_a_name_is_read_word_by_word() -> None:
    assert words_of("HostedQueue") & POETIC
    assert words_of("open_family") & POETIC
    assert words_of("MOST_VIEWERS") & POETIC
    assert not words_of("prefetch") & POETIC


def test_a_room_has_room() -> None:
    folders = Counter(str(Path(name).parent) for name in modules())
    wide = {folder: number for folder, number in folders.items() if number > MOST_FILES}
    assert set(wide) <= MAY_BE_WIDE, wide


def test_files_are_short() -> None:
    lines = {name: (REPOSITORY / name).read_text(encoding="utf-8").count("\n") for name in modules()}
    assert {name: own for name, own in lines.items() if own > MOST_LINES} == {}
    assert median(lines.values()) < MEDIAN_LINES
