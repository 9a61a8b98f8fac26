"""Which invoice was mailed by which job: `psa.invoice_emails`.

    (no row) ─► sending ─► sent
                 │   ▲
                 ▼   │
                failed

`sending` is committed before the mail goes out, and `sent` after the server has taken it.
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from jobbridge.handlers.mailing.once import Outcome
from jobbridge.handlers.sql import Connection, one_as, run

# Only one run gets it: the primary key decides between two at once, the status between attempts.
CLAIM = """
INSERT INTO psa.invoice_emails AS mail (tenant, job_id, invoice_id, recipient, message_id, status)
VALUES (%(tenant)s, %(job_id)s, %(invoice_id)s, %(recipient)s, %(message_id)s, 'sending')
ON CONFLICT (tenant, job_id, invoice_id) DO UPDATE
SET status = 'sending', recipient = EXCLUDED.recipient, reply = NULL, claimed_at = now(), settled_at = NULL
WHERE mail.status = 'failed'
"""

SETTLE = """
UPDATE psa.invoice_emails
SET status = %(status)s, reply = %(reply)s, settled_at = now()
WHERE tenant = %(tenant)s AND job_id = %(job_id)s AND invoice_id = %(invoice_id)s AND status = 'sending'
"""

FIND = """
SELECT status, recipient, message_id, reply
FROM psa.invoice_emails
WHERE tenant = %(tenant)s AND job_id = %(job_id)s AND invoice_id = %(invoice_id)s
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class OutgoingMail:
    status: str
    recipient: str
    message_id: str
    reply: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class MailKey:
    tenant: str
    job_id: str
    invoice_id: UUID

    def parameters(self, **more: object) -> dict[str, object]:
        return {"tenant": self.tenant, "job_id": self.job_id, "invoice_id": self.invoice_id, **more}


def find_mail(connection: Connection, key: MailKey) -> OutgoingMail | None:
    return one_as(OutgoingMail, connection, FIND, key.parameters())


def claim_mail(connection: Connection, key: MailKey, *, recipient: str, message_id: str) -> bool:
    """Take the right to send this mail.

    Returns:
        False: another run of this job has it, or has used it.
    """
    return run(connection, CLAIM, key.parameters(recipient=recipient, message_id=message_id)) == 1


def settle_mail(connection: Connection, key: MailKey, outcome: Outcome, reply: str) -> None:
    """Note how it ended; of one in doubt `sending` says so, since a job's mail has no other run that could be at it."""
    if outcome is not Outcome.UNCERTAIN:
        run(connection, SETTLE, key.parameters(status=outcome, reply=reply))
