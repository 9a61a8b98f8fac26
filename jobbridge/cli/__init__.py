"""The command `jobbridge`.

Exit codes: 0 done · 1 the job, or a member of `dev`, failed · 2 the command was written wrongly · 3 a setting is
missing or wrong, or the database is not migrated · 4 Postgres or Temporal cannot be reached · 5 what was asked for
does not exist, or was refused · 130 interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and end the process with its exit code."""
    from jobbridge.cli.root import run

    sys.exit(run(sys.argv[1:] if arguments is None else list(arguments)))
