"""All systems in turn, again and again: what else the machine does meets each of them."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.ledger import WrongNumber
from benchmarks.measures import UNITS, Amounts
from benchmarks.runs import Run, runs_of
from benchmarks.stage import Stages
from benchmarks.systems import SYSTEMS
from benchmarks.temporal_runs import temporal_runs_of
from jobbridge.dev.process import DevServerError


@dataclass(kw_only=True)
class Results:
    """What was found: for each measure and system, the number of each round (None: it failed in that one)."""

    rounds: dict[tuple[str, str], list[float | None]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def add(self, measure: str, system: str, number: float | None) -> None:
        self.rounds.setdefault((measure, system), []).append(number)

    def runs(self, measure: str, system: str) -> list[float]:
        return [number for number in self.rounds.get((measure, system), []) if number is not None]

    def median(self, measure: str, system: str) -> float | None:
        runs = self.runs(measure, system)
        return statistics.median(runs) if runs else None

    def ratios(self, ours: tuple[str, str], against: tuple[str, str]) -> list[float]:
        """Give the ratio of each round that has both: what slowed down a whole round does not count."""
        pairs = zip(self.rounds.get(ours, []), self.rounds.get(against, []), strict=False)
        return [mine / other for mine, other in pairs if mine is not None and other is not None]

    def write(self, path: Path) -> None:
        """Write `latest.json`."""
        rows = [
            {
                "measure": measure,
                "system": system,
                "unit": UNITS[measure],
                "runs": [round(number, 4) for number in self.runs(measure, system)],
                "median": round(median, 4),
            }
            for measure, system in self.rounds
            if (median := self.median(measure, system)) is not None
        ]
        path.write_text(json.dumps(rows, indent=1) + "\n")


def run_rounds(
    stages: Stages,
    amounts: Amounts,
    *,
    rounds: int,
    only: Iterable[str] = (),
    systems: Iterable[str] = (),
    say: Callable[[str], object] = print,
    after_round: Callable[[Results], object] = lambda _: None,
) -> Results:
    """Measure.

    Args:
        stages: Where.
        amounts: How much of each.
        rounds: Of each series.
        only: Measures; all by default.
        systems: All by default. Those that are missing here are left out, as `stages` knows.
        say: Told of each number.
        after_round: Given what there is so far.
    """
    only, systems = set(only), set(systems)
    present = [name for name, system in SYSTEMS.items() if not system.missing(stages.servers)]
    if "temporal" in stages.servers.missing:
        only = (only or set(UNITS)) - {measure for measure in UNITS if measure.startswith("temporal_")}
    chosen = [name for name in present if not systems or name in systems]
    wanted = [
        run for run in [*runs_of(amounts), *temporal_runs_of(amounts)] if not only or only & set(run.measures)
    ]
    results = Results()
    for series in sorted({run.series for run in wanted}):
        for number in range(1, rounds + 1):
            say(f"round {number} of {rounds}")
            # Another one is first in each round: nobody always follows the same neighbour.
            first = (number - 1) % max(1, len(chosen))
            turn = [*chosen[first:], *chosen[:first]]
            for run in (run for run in wanted if run.series == series):
                for system in (name for name in turn if name in run.systems):
                    _once(stages, run, system, amounts, results, say)
            after_round(results)
    return results


def _once(
    stages: Stages, run: Run, system: str, amounts: Amounts, results: Results, say: Callable[[str], object]
) -> None:
    began = time.monotonic()
    try:
        numbers = run.work(stages, SYSTEMS[system], amounts)
    except (WrongNumber, AssertionError, DevServerError, OSError) as error:
        results.failures.append(f"{system}, {run.measures[0]}: {str(error).splitlines()[0]}")
        say(f"{run.measures[0]} {system}: FAILED: {error}")
        for measure in run.measures:  # each round has its place, or ratios would be of different rounds
            results.add(measure, system, None)
        return
    for measure, number in numbers.items():
        results.add(measure, system, number)
    found = ", ".join(f"{measure} {number:,.4g} {UNITS[measure]}" for measure, number in numbers.items())
    say(f"{system}: {found}  [{time.monotonic() - began:.0f} s]")
