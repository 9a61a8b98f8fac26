"""What is done by command is on record, as what is done on the dashboard is: the same words, in the same table."""

from __future__ import annotations

import getpass
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import click

from jobbridge.cli.failures import exit_code
from jobbridge.core.access import Principal, Role
from jobbridge.core.keys import JobKey, TenantId
from jobbridge.errors import DatabaseError

if TYPE_CHECKING:
    from jobbridge.app.application import Celery

Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(kw_only=True)
class Entry:
    """What the audit will say; the command that does it fills in what it learns.

    Attributes:
        outcome: "done", or what came of it instead.
    """

    tenant: str | None = None
    subject: str | None = None
    outcome: str = "done"
    reason: str | None = None
    details: dict[str, Any] = field(default_factory=dict)


def by_option(command: Command) -> Command:
    """Add `--by`."""
    text = "Who does it, for the audit; by default whoever runs the command."
    return click.option("--by", metavar="NAME", help=text)(command)


@contextmanager
def on_record(
    app: Celery,
    action: str,
    *,
    by: str | None,
    job: JobKey | None = None,
    tenant: str | None = None,
    subject: str | None = None,
    reason: str | None = None,
    details: dict[str, Any] | None = None,
) -> Iterator[Entry]:
    """Put on record what is done inside, also if it is refused.

    Args:
        app: Whose database it is.
        action: A verb, as the dashboard has it.
        by: Who does it; None: the user of this machine.
        job: To which job; or:
        tenant: Whose things it is about.
        subject: To what.
        reason: Why.
        details: What else is to be known.

    Yields:
        What will be written.
    """
    if job is not None:
        tenant, subject = job.tenant, str(job.job_id)
    entry = Entry(
        tenant=tenant, subject=subject, reason=reason, details={"via": "command", **(details or {})}
    )
    try:
        yield entry
    except Exception as error:
        entry.outcome, entry.reason = "failed" if exit_code(error) is None else "refused", str(error)
        _write(app, action, by, entry)
        raise
    _write(app, action, by, entry)


def _write(app: Celery, action: str, by: str | None, entry: Entry) -> None:
    from jobbridge.store.access.tokens import AccessStore

    # Whoever has the database's address may do everything.
    who = Principal(name=by or _user_here(), role=Role.ADMIN)
    try:
        AccessStore(app.database).note(
            who,
            action,
            outcome=entry.outcome,
            tenant=None if entry.tenant is None else TenantId(entry.tenant),
            subject=entry.subject,
            reason=entry.reason,
            details=entry.details,
        )
    except DatabaseError as error:  # what was done is done, and what went wrong is told by who called
        click.echo(f"Warning: this is not in the audit: {error}", err=True)


def _user_here() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = "somebody"
    return f"{user}@{socket.gethostname()}"
