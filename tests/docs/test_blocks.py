"""What the documentation prints is run: programs, commands and SQL as they stand, page by page, from top to bottom.

A program with a title is a file; all others of a page are one program, in their order, after `given/PAGE.py`. What a
page takes for granted is in `given`. A command that stays (a worker) does so until the page ends.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
import yaml

from jobbridge.dev.process import free_port
from jobbridge.dev.temporal import TemporalServer
from tests.docs.blocks import Block, blocks_of, commands_of, pages
from tests.docs.given import ALWAYS, GIVEN, Given
from tests.docs.terminal import Terminal, in_its_place
from tests.forked import run_python
from tests.support import REPOSITORY, clean_environment

HERE = Path(__file__).parent

#: Nothing to run: pictures in text, and files of other programs that we cannot start here.
SHOWN_ONLY = {"text", "nginx"}

#: The addresses that the pages print.
PRINTED_DATABASE = "postgresql://shop:secret@localhost:5432/shop"
PRINTED_TEMPORAL = "127.0.0.1:7233"

#: Run by tests of their own, as files of a project.
ELSEWHERE = {
    "django.md": "tests/integration/django/test_docs.py",
    "fastapi.md": "tests/docs/test_fastapi.py",
    "async.md": "tests/integration/testing/test_strangers_project.py",
    "testing.md": "tests/integration/testing/test_strangers_project.py",
}

PAGES = [page for page in pages() if blocks_of(page) and page not in ELSEWHERE]


@pytest.fixture
def instead(request: pytest.FixtureRequest, database_url: str) -> dict[str, str]:
    """Give what stands for the addresses of a page."""
    page = request.node.callspec.params["page"]
    instead = {**GIVEN.get(page, Given()).instead, **ALWAYS, PRINTED_DATABASE: database_url}
    if any("temporal" in block.text for block in blocks_of(page)):
        server: TemporalServer = request.getfixturevalue("temporal")
        instead[PRINTED_TEMPORAL] = server.address
    return instead


@pytest.fixture
def settings(request: pytest.FixtureRequest, instead: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """Give the environment, as far as the page does not set it by itself."""
    page = request.node.callspec.params["page"]
    settings = {"JOBBRIDGE_SECRET_KEY": "only-for-this-test" * 2, "PORT": str(free_port())}
    settings["TEMPORAL_JOB_TASK_QUEUE"] = instead.setdefault("alga-jobs", f"docs-{page}")
    if not any("export DATABASE_URL" in block.text for block in blocks_of(page)):
        settings["DATABASE_URL"] = instead[PRINTED_DATABASE]
    if PRINTED_TEMPORAL in instead:
        settings["TEMPORAL_ADDRESS"] = instead[PRINTED_TEMPORAL]
    return settings


@pytest.fixture
def terminal(open_folder: Path, settings: dict[str, str], instead: dict[str, str]) -> Iterator[Terminal]:
    shutil.copy(HERE / "shop.py", open_folder / "shop.py")
    with closing(Terminal(open_folder, settings, instead)) as terminal:
        yield terminal


@pytest.mark.long
@pytest.mark.parametrize("page", PAGES)
def test_a_page(
    page: str, terminal: Terminal, open_folder: Path, settings: dict[str, str], instead: dict[str, str]
) -> None:
    blocks, given = blocks_of(page), GIVEN.get(page, Given())
    inside = {"DATABASE_URL": instead[PRINTED_DATABASE], **settings}
    for block in blocks:
        if block.title is not None:
            (open_folder / block.title).write_text(block.text)
    with psycopg.connect(instead[PRINTED_DATABASE], autocommit=True) as connection:
        for statement in given.statements:
            connection.execute(statement.encode())
        for command in given.commands:
            terminal.type(command)
        _run_programs(page, blocks, instead, open_folder, inside)
        for block in blocks:
            match block.language:
                case "sh" | "console":
                    for command in commands_of(block):
                        terminal.type(command)
                case "sql":
                    connection.execute(in_its_place(block.text, instead).encode())
                case "json":
                    json.loads(block.text)
                case "yaml":
                    yaml.safe_load(block.text)
                case "python":
                    pass
                case language:
                    assert language in SHOWN_ONLY, f"{block}: say which language it is"


def _run_programs(
    page: str, blocks: list[Block], instead: dict[str, str], folder: Path, settings: dict[str, str]
) -> None:
    programs = [block for block in blocks if block.language == "python"]
    for block in programs:
        if block.title is not None:
            _run(block.title, folder, settings)
    if untitled := [block for block in programs if block.title is None]:
        before = HERE / "given" / f"{page.removesuffix('.md').replace('/', '_').replace('-', '_')}.py"
        parts = [before.read_text()] if before.exists() else []
        parts += [f"# {block}\n{in_its_place(block.text, instead)}" for block in untitled]
        (folder / "page.py").write_text("\n".join(parts))
        _run("page.py", folder, settings)


def _run(program: str, folder: Path, settings: dict[str, str]) -> None:
    # `python page.py` is `python -m page` in its folder, which can be forked: what it imports costs most of its time.
    done = run_python(
        ["-m", program.removesuffix(".py").replace("/", ".")],
        cwd=folder,
        env=clean_environment({"PYTHONPATH": str(REPOSITORY), **settings}),
        timeout=90,
    )
    assert done.returncode == 0, f"{done.stdout}{done.stderr}\n{(folder / program).read_text()}"


def test_every_program_of_the_pages_parses() -> None:
    programs = [block for page in PAGES for block in blocks_of(page) if block.language == "python"]
    assert programs
    for block in programs:
        compile(block.text, str(block), "exec")


def test_every_block_says_what_it_is() -> None:
    assert [str(block) for page in PAGES for block in blocks_of(page) if not block.language] == []


@pytest.mark.parametrize(("page", "test"), ELSEWHERE.items())
def test_a_page_that_is_run_elsewhere_is(page: str, test: str) -> None:
    assert page.removesuffix(".md") in (REPOSITORY / test).read_text()
