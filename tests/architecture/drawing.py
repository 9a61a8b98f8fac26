"""The drawing in docs/development.md, read: rooms by layer, and the stations of a job."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from tests.support import REPOSITORY

_STATION = re.compile(r"^    ( *)([→⇒]) (\S+\.py): ([\w.]+)", re.MULTILINE)


@dataclass(frozen=True)
class Station:
    """A function that a job passes; `caller` has the call in its code, None: something else hands the job over."""

    path: str
    name: str
    caller: Station | None


@cache
def chapter() -> str:
    page = (REPOSITORY / "docs/development.md").read_text(encoding="utf-8")
    [found] = re.findall(r"^## The rooms, and the way of one job\n(.*?)^## ", page, re.MULTILINE | re.DOTALL)
    return str(found)


def layers() -> dict[str, list[str]]:
    """Give the layers from above, each with its rooms."""
    drawing = chapter().split("\n\n")[1]
    drawn: dict[str, list[str]] = {}
    for line in drawing.splitlines():
        layer, *words = line.split(maxsplit=1)
        text = words[0].split(": ")[-1] if words else ""
        is_one = bool(words) and re.search(r": \w+$", words[0]) is not None
        drawn[layer] = text.split(" · ") if " · " in text or is_one else []
    return drawn


def way(engine: str) -> list[Station]:
    """Give the stations in their order."""
    return list(_stations(chapter().split(f"On {engine}:\n\n", 1)[1].split("\n\n", 1)[0]))


def _stations(part: str) -> Iterator[Station]:
    above: dict[int, Station] = {}
    for indent, arrow, path, name in _STATION.findall(part):
        station = Station(path, name, above[len(indent) - 2] if arrow == "→" else None)
        above[len(indent)] = station
        yield station
