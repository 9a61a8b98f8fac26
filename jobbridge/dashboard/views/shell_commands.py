"""Commands for a shell, so that they can be copied and run: with the app that the dashboard was started with."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from shlex import quote
from typing import TYPE_CHECKING

from jobbridge.core.keys import SYSTEM_TENANT
from jobbridge.dashboard.views.formats import masked

if TYPE_CHECKING:
    from jobbridge.store.jobs.rows import JobRow

#: Longer data is better read from a file.
_SHORT = 500
#: What takes `-A`. It reads tasks, or asks the app where its tables are.
_OF_AN_APP = re.compile(
    r"jobbridge (explain|jobs|events|schedules|queues|tenants|tokens|doctor|maintain|enqueue|dashboard)\b"
)


def in_shell(command: str, app_name: str | None) -> str:
    """Name the app in a command, where it is known and the command has to know it.

    Args:
        app_name: As after `celery -A`; None: nobody said it, or it is the one that comes with JobBridge.
    """
    if app_name is None:
        return command
    named = command.replace("-A APP", f"-A {quote(app_name)}")
    if named == command and _OF_AN_APP.match(command) and " -A " not in command:
        return f"{command} -A {quote(app_name)}"
    return named


def with_commands(text: str, app_name: str | None) -> list[tuple[str, bool]]:
    """Take a hint apart where it has a command between backquotes: pieces, and whether each is one."""
    pieces = [(part, place % 2 == 1) for place, part in enumerate(text.split("`")) if part]
    return [(in_shell(part, app_name) if is_command else part, is_command) for part, is_command in pieces]


def send_like(job: JobRow) -> Iterator[str]:
    """Give the words that send a job like this one, with data that can be edited.

    Data that has secrets, or is long, is to come from a file.
    """
    text = json.dumps(job.metadata["data"], ensure_ascii=False)
    is_shown = len(text) <= _SHORT and masked(job.metadata["data"]) == job.metadata["data"]
    yield from ("jobbridge", "enqueue", quote(job.type), "--data", quote(text) if is_shown else "@data.json")
    yield from ("--engine", job.runner_type.value)
    if job.tenant != SYSTEM_TENANT:
        yield from ("--tenant", quote(job.tenant))
    if job.queue:
        yield from ("--queue", quote(job.queue))
