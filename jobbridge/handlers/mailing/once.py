"""Send a mail that has a row of its own, so that it is never sent twice.

The row is claimed (`sending`, committed) when the server has accepted both addresses, before the mail goes out, and
settled after the server's answer. A process that dies in between leaves a mail of which nobody knows; whoever finds
the row says so, and does not send.
"""

from __future__ import annotations

import logging
import time
from email.message import EmailMessage
from enum import StrEnum
from typing import Protocol

from jobbridge.errors import DatabaseUnavailable
from jobbridge.handlers.mailing.errors import (
    MailDeferred,
    MailRefused,
    MailServerUnavailable,
    MailUncertain,
)
from jobbridge.handlers.mailing.smtp import MailSender

#: Seconds between attempts to write that a mail was sent, when Postgres is away just then.
SETTLE_PAUSES = (0.5, 1.0, 2.0, 4.0)

logger = logging.getLogger(__name__)


class Outcome(StrEnum):
    SENT = "sent"
    FAILED = "failed"  # it certainly was not sent, so another attempt may
    UNCERTAIN = "uncertain"


class OutboxRow(Protocol):
    """The row of one mail."""

    def claim(self) -> None:
        """Take the right to send the mail, in a transaction of its own; raise if somebody else has it."""

    def settle(self, outcome: Outcome, reply: str) -> None:
        """Write how it ended, in a transaction of its own."""


def send_claimed(
    sender: MailSender, mail: EmailMessage, row: OutboxRow, *, mail_from: str, recipient: str
) -> None:
    """Send a mail and settle its row.

    Raises:
        MailError: It was not sent, or not certainly.
        Exception: What `claim` raised; nothing was sent.
    """
    is_ours = False

    def claim() -> None:
        nonlocal is_ours
        row.claim()
        is_ours = True

    try:
        reply = sender.send(mail, sender=mail_from, recipient=recipient, claim=claim)
    except (MailDeferred, MailRefused, MailServerUnavailable) as error:
        if is_ours:  # else the row, if there is one, tells of another run's mail
            _settle(row, Outcome.FAILED, str(error), mail)
        raise
    except MailUncertain as error:
        if is_ours:
            _settle(row, Outcome.UNCERTAIN, str(error), mail)
        raise
    _settle(row, Outcome.SENT, reply, mail)


def _settle(row: OutboxRow, outcome: Outcome, reply: str, mail: EmailMessage) -> None:
    """Write how it ended. Tried for some seconds: what is not written here is in doubt for ever."""
    for pause in SETTLE_PAUSES:
        try:
            return row.settle(outcome, reply)
        except DatabaseUnavailable:
            logger.warning("mail.not_settled", extra={"message_id": mail["Message-ID"], "again_in": pause})
            time.sleep(pause)
    return row.settle(outcome, reply)
