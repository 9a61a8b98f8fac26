"""What the broker raises on purpose.

    kombu.exceptions.KombuError
    ├── BrokerError                  everything below; `hint` says what to do
    │   ├── BrokerNotMigrated        the broker's tables are missing: not cured by reconnecting
    │   ├── BrokerRefused            wrong password, no such role or database: not cured by reconnecting
    │   ├── InvalidOption            a transport option or URL that is not understood
    │   ├── Unreadable               a stored message that is none: it becomes a dead letter
    │   ├── PublishFailed            the message was not stored      } also kombu's OperationalError,
    │   ├── NotNow                   Postgres could not do it now    } which callers of `delay()` catch
    │   └── SessionLost              the session with Postgres ended }

`SessionLost` and `NotNow` are the transport's `connection_errors`: what kombu and Celery answer by coming again.
None of the others is among them, so none is retried for ever. A consumer never lets `NotNow` out: it would be taken
for a lost connection, and give back what runs (see `consume.prefetch` and `consume.settling`).

What each does about each kind of fault (`jobbridge.postgres.faults`):

| | lost | transient | refused, wrong |
|---|---|---|---|
| publishing | SessionLost: kombu retries | NotNow: kombu retries | PublishFailed |
| taking | SessionLost: Celery comes back, what runs is kept | logged; again in a moment | raised: the worker ends |
| settling | acknowledged late, by the next session | kept; tried again in a moment, and at the end | kept, and raised |
| sweeping | SessionLost | logged; next time | raised |
"""

from __future__ import annotations

from kombu.exceptions import KombuError, OperationalError


class BrokerError(KombuError):
    """Base of the broker's own errors.

    Args:
        message: What is wrong, with the value that is wrong.
        hint: What to do, in the imperative.
    """

    hint: str = ""

    def __init__(self, message: str, *, hint: str = "") -> None:
        self.hint = hint or type(self).hint
        # Whoever prints the error (Celery's command line, kombu's retry log) shows only its text.
        message = message.strip() if message.strip().endswith((".", "?", "!")) else f"{message.strip()}."
        super().__init__(f"{message} {self.hint}".rstrip())


class BrokerNotMigrated(BrokerError):
    """The broker's tables are missing from the database."""

    hint = "Run `jobbridge migrate`."


class BrokerRefused(BrokerError):
    """Postgres answers, and refuses: wrong password, no such role or database."""

    hint = "Check user, password and database name in the broker URL."


class InvalidOption(BrokerError):
    """A transport option, or a broker URL, is not understood."""


class Unreadable(BrokerError):
    """A stored message that cannot be delivered to anybody."""


class PublishFailed(BrokerError, OperationalError):
    """The message was not stored."""

    hint = "Nothing was enqueued: roll the transaction back and publish again."


class NotNow(BrokerError, OperationalError):
    """Postgres could not do it now, and did nothing: cancelled, read-only, full, or for others' sake. Try again."""


class SessionLost(BrokerError, OperationalError, ConnectionError):
    """The session with Postgres ended, and with it the leases that it held."""
