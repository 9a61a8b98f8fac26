"""What a caller sees when a job could not be sent: one family, which is ours and kombu's at once.

    DatabaseError, kombu.exceptions.OperationalError
    └── NotSent                     Postgres refused the job: nothing was sent
        ├── NotSentNow              it cannot be reached, or cannot do it now: also DatabaseUnavailable
        │   └── NotSentNoEntry      it answers, and will not have us: also DatabaseRefused
        ├── NotSentWithoutTables    also NotMigrated
        └── NotSentToLaterTables    also SchemaTooNew

    PayloadTooLarge, kombu.exceptions.EncodeError
    └── TooLarge                    a message or a result is larger than the setting allows

Celery's documented way is `except OperationalError` (`task.OperationalError`); ours is by `jobbridge.errors`. That
module cannot know kombu, so these are made where callers meet them: here, at the edge.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from kombu.exceptions import EncodeError, OperationalError

from jobbridge.broker.errors import BrokerNotMigrated, BrokerRefused, NotNow, PublishFailed, SessionLost
from jobbridge.errors import (
    DatabaseError,
    DatabaseRefused,
    DatabaseUnavailable,
    NotMigrated,
    PayloadTooLarge,
    SchemaTooNew,
)
from jobbridge.postgres.faults import Kind, kind_of, reason_of
from jobbridge.store.database import refusal


class NotSent(DatabaseError, OperationalError):
    """Postgres refused the job: nothing was sent."""

    hint = "Nothing was sent: correct what Postgres complains of, and send it again."


class NotSentNow(NotSent, DatabaseUnavailable):
    """Postgres cannot be reached, or cannot take the job now. Safe to retry."""

    hint = (
        "Send it again when Postgres is back; with a task_id of your own it is sent once, even if an answer was lost. "
        "`jobbridge doctor` says what is wrong."
    )


class NotSentNoEntry(NotSentNow, DatabaseRefused):
    """Postgres answers, and will not have us: waiting does not help."""

    hint = DatabaseRefused.hint


class NotSentWithoutTables(NotSent, NotMigrated):
    """The tables are missing, or older than this release works on."""

    hint = NotMigrated.hint


class NotSentToLaterTables(NotSent, SchemaTooNew):
    """A later release has changed the tables so that they no longer serve this one."""

    hint = SchemaTooNew.hint


class TooLarge(PayloadTooLarge, EncodeError):
    """A message or a result is too large: for Celery's tracer, one that cannot be encoded, so that its job fails."""


@contextmanager
def sending() -> Iterator[None]:
    """Have what fails inside for Postgres' sake be of the family; all else passes.

    Raises:
        NotSent: See the drawing above; its cause says what it was.
    """
    try:
        yield
    except (DatabaseError, OperationalError, psycopg.Error, BrokerNotMigrated, BrokerRefused) as error:
        told = _in_the_family(error)
        if told is error:
            raise
        raise told from error


@contextmanager
def commanding() -> Iterator[None]:
    """Have what keeps a command from the workers be of the family, too.

    Raises:
        NotSent: See the drawing above; its cause says what it was.
    """
    try:
        with sending():
            yield
    except NotSentNow as error:
        if error.hint == NotSentNow.hint:
            error.hint = (
                "Give the command again when Postgres is back. `jobbridge doctor` says what is wrong."
            )
        raise


def _in_the_family(error: Exception) -> Exception:
    match error:
        case NotSent():
            return error
        case DatabaseError():
            return _of_ours(error)
        case psycopg.Error():
            return _of_postgres(error)
        case BrokerNotMigrated():
            return NotSentWithoutTables(_without_hint(error))
        case BrokerRefused():
            return NotSentNoEntry(_without_hint(error), hint=error.hint)
        case SessionLost() | NotNow():
            return NotSentNow(_without_hint(error))
        case PublishFailed():
            cause = error.__cause__
            return _of_postgres(cause) if isinstance(cause, psycopg.Error) else NotSent(_without_hint(error))
    return error  # of another broker: kombu's own


def _of_ours(error: DatabaseError) -> NotSent:
    message = str(error)
    match error:
        case DatabaseRefused():
            return NotSentNoEntry(message, hint=error.hint)
        case DatabaseUnavailable():
            return NotSentNow(message, hint="" if error.hint == DatabaseUnavailable.hint else error.hint)
        case NotMigrated():
            return NotSentWithoutTables(message, hint=error.hint)
        case SchemaTooNew():
            return NotSentToLaterTables(message, hint=error.hint)
    return NotSent(message, hint=error.hint)


def _of_postgres(error: psycopg.Error) -> NotSent:
    if kind_of(error) in (Kind.LOST, Kind.TRANSIENT):
        return NotSentNow(f"Postgres cannot take the job now: {reason_of(error)}")
    return _of_ours(refusal(error))


def _without_hint(error: Exception) -> str:
    return str(error).removesuffix(getattr(error, "hint", "")).strip()
