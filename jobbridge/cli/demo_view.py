"""What `jobbridge demo` shows while it runs, and at its end."""

from __future__ import annotations

from collections.abc import Sequence
from email import message_from_bytes, policy
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from jobbridge.cli.common import seconds_between, styled
from jobbridge.core.keys import Engine

if TYPE_CHECKING:
    from uuid import UUID

    from jobbridge.cli.demo import EngineRun
    from jobbridge.store.jobs.rows import JobRow


BAR_WIDTH = 20


class DemoView:
    """The jobs of one engine while they run: a table that changes, or one line per change when nobody looks on."""

    def __init__(self, console: Console, engine: Engine) -> None:
        self._console = console
        self._engine = engine
        self._seen: dict[UUID, str] = {}
        self._live = Live(console=console, transient=True) if console.is_terminal else None

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def update(self, rows: Sequence[JobRow]) -> None:
        """Show these jobs."""
        if self._live is not None:
            self._live.update(_running(rows))
            return
        for row in rows:
            line = f"{self._engine.value:<9} {row.type:<33} {row.status.value:<11} {_progress(row)}".rstrip()
            if self._seen.get(row.job_id) != line:
                self._seen[row.job_id] = line
                self._console.print(line, markup=False)


def _running(rows: Sequence[JobRow]) -> Table:
    table = Table("type", "engine", "status", "attempts", "progress", "", box=None)
    for row in rows:
        bar = ProgressBar(total=100, completed=row.progress or 0, width=BAR_WIDTH)
        told = row.progress_message or ""
        table.add_row(row.type, row.runner_type.value, styled(row.status), str(row.attempt), bar, told)
    return table


def _progress(row: JobRow) -> str:
    if row.progress is None:
        return ""
    return f"{row.progress:3.0f} % {row.progress_message or ''}".rstrip()


def show_end(
    console: Console, runs: Sequence[EngineRun], summary: Path, wrong: Sequence[str], seconds: float
) -> None:
    """Show the jobs, the documents, and what is wrong."""
    table = Table("type", "engine", "status", "attempts", "duration", box=None)
    for run in runs:
        for row in run.jobs:
            duration = seconds_between(row.started_at, row.completed_at)
            shown = "" if duration is None else f"{duration:.2f} s"
            table.add_row(row.type, row.runner_type.value, styled(row.status), str(row.attempt), shown)
    console.print()
    console.print(table)
    console.print("\nDocuments:")
    for run in runs:
        for path in (*run.documents, *run.mails):
            console.print(f"  {path}", markup=False, soft_wrap=True)
    console.print(f"\nSummary: {summary}", markup=False)
    for problem in wrong:
        console.print(f"WRONG: {problem}", style="red", markup=False, soft_wrap=True)
    if not wrong:
        same = ", and both engines made the same documents" if len(runs) == 2 else ""
        console.print(f"Every job completed{same}. {seconds:.0f} s.", style="green")


def show_dashboard(console: Console, text: str) -> None:
    """Show where the jobs can be looked at."""
    console.print(f"\n{text}", style="bold", markup=False, soft_wrap=True)


def differences(ours: Sequence[Path], theirs: Sequence[Path]) -> list[str]:
    """Say which documents differ between two engines: by name, then by content."""
    left = {path.name: path for path in ours}
    right = {path.name: path for path in theirs}
    alone = sorted(left.keys() ^ right.keys())
    differing = [
        name for name in sorted(left.keys() & right.keys()) if _essence(left[name]) != _essence(right[name])
    ]
    return [f"only one engine made {name}" for name in alone] + [
        f"{left[name]} and {right[name]} differ" for name in differing
    ]


def _essence(path: Path) -> Any:
    """Give what must be the same on both engines: everything, but of a mail what its reader gets."""
    content = path.read_bytes()
    if path.suffix != ".eml":
        return content
    message = message_from_bytes(content, policy=policy.default)
    parts = [
        (part.get_content_type(), part.get_filename(), part.get_payload(decode=True))
        for part in message.walk()
    ]
    return [message["From"], message["To"], message["Subject"], parts]
