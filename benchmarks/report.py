"""The tables: ratios against what they should be, and the medians themselves."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from benchmarks.measures import COMPARISONS, UNITS, Comparison
from benchmarks.rounds import Results
from benchmarks.systems import SYSTEMS


@dataclass(frozen=True, kw_only=True)
class Line:
    """A comparison, and what came of it."""

    comparison: Comparison
    ratios: list[float]

    @property
    def ratio(self) -> float:
        """The median of the rounds."""
        return statistics.median(self.ratios)

    @property
    def share(self) -> float:
        """How much of the bound is reached; 1.0 and more is enough, whichever direction the bound has."""
        bound = self.comparison.bound
        return bound / self.ratio if self.comparison.is_most else self.ratio / bound

    @property
    def wanted(self) -> str:
        return f"{'≤' if self.comparison.is_most else '≥'} {self.comparison.bound:g}"


def lines_of(results: Results) -> list[Line]:
    """Give the comparisons whose both sides were measured."""
    lines = []
    for comparison in COMPARISONS:
        ours = (comparison.measure, comparison.system)
        other = comparison.against
        ratios = results.runs(*ours) if other is None else results.ratios(ours, other)
        if ratios:
            lines.append(Line(comparison=comparison, ratios=ratios))
    return lines


def ratios_table(lines: list[Line]) -> str:
    """Tell the ratios, as Markdown."""
    rows = ["| ours : other | ratio | of the rounds | wanted | |", "|---|---|---|---|---|"]
    for line in lines:
        verdict = "reached" if line.share >= 1 else f"{line.share:.0%} of it"
        each = f"{len(line.ratios)}: {min(line.ratios):.2f} to {max(line.ratios):.2f}"
        rows.append(f"| {line.comparison.text} | {line.ratio:.2f} | {each} | {line.wanted} | {verdict} |")
    return "\n".join(rows)


def medians_table(results: Results) -> str:
    """Tell the medians of all systems, as Markdown: measures are the columns that fit on a page."""
    measures = [measure for measure in UNITS if any(key[0] == measure for key in results.rounds)]
    systems = [name for name in SYSTEMS if any(key[1] == name for key in results.rounds)]
    rows = [
        "| | " + " | ".join(f"{measure}, {UNITS[measure]}" for measure in measures) + " |",
        "|---" * (len(measures) + 1) + "|",
    ]
    for name in systems:
        cells = (results.median(measure, name) for measure in measures)
        rows.append(f"| {SYSTEMS[name].title} | " + " | ".join(map(_cell, cells)) + " |")
    return "\n".join(rows)


def _cell(number: float | None) -> str:
    if number is None:
        return ""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"
