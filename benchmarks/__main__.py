"""Measure, and tell: see docs/benchmarks.md."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.drawing import draw
from benchmarks.measures import SMALL, UNITS, Amounts
from benchmarks.report import lines_of, medians_table, ratios_table
from benchmarks.rounds import Results, run_rounds
from benchmarks.servers import Servers, run_servers
from benchmarks.stage import Stages
from benchmarks.systems import HOME, SYSTEMS
from tests.support import REPOSITORY

PICTURE = REPOSITORY / "docs" / "pictures" / "benchmark.svg"


def main(arguments: list[str] | None = None) -> int:
    """Run it; the exit status is 1 if a number is missing because something went wrong."""
    options = _parse(arguments)
    only, systems = _names(options.only, UNITS), _names(options.systems, SYSTEMS)
    wanted = {system.server for name, system in SYSTEMS.items() if not systems or name in systems}
    wanted -= {"temporal"}
    if not only or any(measure.startswith("temporal_") for measure in only):
        wanted.add("temporal")
    folder = Path(options.folder)
    with run_servers(folder, wanted) as servers:
        _name_missing(servers, systems)
        results = run_rounds(
            Stages(servers=servers, folder=folder),
            SMALL if options.small else Amounts(),
            rounds=options.rounds,
            only=only,
            systems=systems,
            say=lambda text: print(f"{datetime.now():%H:%M:%S}  {text}", flush=True),
            after_round=lambda results: results.write(folder / "latest.json"),
        )
        about = _about(servers, options.rounds)
    is_whole = not (only or systems or options.small)
    _tell(results, about, folder, PICTURE if is_whole else folder / "benchmark.svg")
    if is_whole:
        _print_budget()
    return 1 if results.failures else 0


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description=(__doc__ or "").strip())
    parser.add_argument("--rounds", type=int, default=5, help="of each measure; the median of them is told")
    parser.add_argument("--only", default="", help=f"measures, with commas between: {', '.join(UNITS)}")
    parser.add_argument("--systems", default="", help=f"with commas between: {', '.join(SYSTEMS)}")
    parser.add_argument("--small", action="store_true", help="few jobs: whether it works, not how fast")
    parser.add_argument("--folder", default=str(HOME), help="where the servers' data and the results are")
    return parser.parse_args(arguments)


def _names(text: str, known: object) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    assert isinstance(known, dict)
    if unknown := [name for name in names if name not in known]:
        sys.exit(f"There is no {', '.join(unknown)}. There are: {', '.join(known)}.")
    return names


def _name_missing(servers: Servers, systems: list[str]) -> None:
    for name, system in SYSTEMS.items():
        if (not systems or name in systems) and (reason := system.missing(servers)):
            print(f"Left out: {system.title}: {reason}", flush=True)


def _about(servers: Servers, rounds: int) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in servers.versions.items())
    cores = len(os.sched_getaffinity(0))
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {cores} cores, Python {platform.python_version()}, {versions};"
        f" medians of {rounds} interleaved rounds"
    )


def _tell(results: Results, about: str, folder: Path, picture: Path) -> None:
    lines = lines_of(results)
    text = "\n\n".join((about, ratios_table(lines), medians_table(results)))
    (folder / "latest.md").write_text(text + "\n")
    print(f"\n{text}\n")
    if lines:
        picture.write_text(draw(lines, about))
        print(f"Picture: {picture}")
    for failure in results.failures:
        print(f"FAILED: {failure}")


def _print_budget() -> None:
    from tests.bench.budget import measure, table

    print("\nWhat a job costs in the database:\n")
    print(table(measure(jobs=1000, idle=60)))


if __name__ == "__main__":
    sys.exit(main())
