"""The fenced code blocks of a page."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass

from tests.support import REPOSITORY

DOCS = REPOSITORY / "docs"

_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*)(?P<options>[^\n]*)\n(?P<text>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
_TITLE = re.compile(r'title="([^"]+)"')


@dataclass(frozen=True)
class Block:
    """One of them: its page below `docs`, its line there, and the file that it is, if its title says so."""

    page: str
    line: int
    language: str
    title: str | None
    text: str

    def __str__(self) -> str:
        return f"docs/{self.page}:{self.line}"


def pages() -> list[str]:
    """Name all pages but decisions, which tell of their day."""
    found = (path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
    return sorted(page for page in found if not page.startswith("decisions/"))


def blocks_of(page: str) -> list[Block]:
    text = (DOCS / page).read_text()
    return [
        Block(
            page,
            text.count("\n", 0, match.start()) + 1,
            match["language"],
            title[1] if (title := _TITLE.search(match["options"])) else None,
            textwrap.dedent(match["text"]),
        )
        for match in _FENCE.finditer(text)
    ]


def commands_of(block: Block) -> list[str]:
    """Give the command lines of a block, each in one line, without comments and prompts."""
    lines = re.sub(r"\\\n\s*", "", block.text).splitlines()
    commands = (re.sub(r"(^|\s{2,})#.*$", "", line).strip() for line in lines)
    return [command.removeprefix("$ ") for command in commands if command]
