"""Charts as the server draws them: in a box of 100 by 100 that the browser stretches, the words beside it.

They are there without JavaScript; with it, `charts.js` draws the same numbers from the page's table by uPlot.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from math import ceil, log10

from jobbridge.dashboard.views.formats import length, number

#: Of lengths of time, in seconds: where an axis may end.
_NICE_SECONDS = (
    0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 4, 10, 20, 30, 60, 120, 240, 600, 1200, 1800, 3600, 7200, 14400, 43200,
    86400,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Bar:
    """A part of a column: `kind` is its class."""

    kind: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """A line: `kind` is its class, `path` what SVG draws."""

    kind: str
    path: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Chart:
    """What one chart shows.

    Attributes:
        ticks: The words of the axis, from the top down, evenly apart.
    """

    ticks: Sequence[str]
    bars: Sequence[Bar] = ()
    lines: Sequence[Line] = ()


def columns(kinds: Sequence[tuple[str, Sequence[int]]]) -> Chart:
    """Draw columns of parts that are on top of each other; the first kind is the lowest."""
    sums = [sum(parts) for parts in zip(*(values for _, values in kinds), strict=True)]
    top = nice_number(max(sums, default=0))
    bars = []
    for place in range(len(sums)):
        below = 0
        for kind, values in kinds:
            if values[place]:
                bars.append(_bar(kind, place, len(sums), below, values[place], top))
            below += values[place]
    return Chart(ticks=[number(top), number(top // 2), "0"], bars=bars)


def lines(kinds: Sequence[tuple[str, Sequence[timedelta | None]]]) -> Chart:
    """Draw lengths of time as lines, with a gap where there is none."""
    highest = max(
        (value for _, values in kinds for value in values if value is not None), default=timedelta(0)
    )
    top = nice_length(highest)
    return Chart(
        ticks=[length(top), length(top / 2), "0"],
        lines=[Line(kind=kind, path=_path(values, top)) for kind, values in kinds],
    )


def nice_number(value: int) -> int:
    """Give the next even number that reads well, as 2, 4, 10, 20, 40, 60 and 100."""
    if value <= 2:
        return 2
    size = 10 ** int(log10(value))
    return next(int(size * step) for step in (1, 2, 4, 6, 10, 20) if size * step >= value and size * step > 2)


def nice_length(value: timedelta) -> timedelta:
    """Give the next length of time that reads well."""
    seconds = value.total_seconds()
    found = next((nice for nice in _NICE_SECONDS if nice >= seconds), None)
    return (
        timedelta(seconds=found) if found is not None else timedelta(days=2 * ceil(value / timedelta(days=2)))
    )


def _bar(kind: str, place: int, of: int, below: int, value: int, top: int) -> Bar:
    width = 100 / of
    return Bar(
        kind=kind,
        x=round(place * width + 0.1 * width, 3),
        y=round(100 - 100 * (below + value) / top, 3),
        width=round(0.8 * width, 3),
        height=round(100 * value / top, 3),
    )


def _path(values: Sequence[timedelta | None], top: timedelta) -> str:
    """Draw from middle to middle; a value without neighbours is a dot, since the line's ends are round."""
    width, parts, is_drawing = 100 / max(1, len(values)), [], False
    for place, value in enumerate(values):
        if value is None:
            is_drawing = False
            continue
        at = f"{(place + 0.5) * width:.2f} {100 - 100 * (value / top):.2f}"
        parts.append(f"L{at}" if is_drawing else f"M{at}L{at}")
        is_drawing = True
    return "".join(parts)
