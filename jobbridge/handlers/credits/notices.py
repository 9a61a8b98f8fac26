"""When a notice about a credit is due (pure), and which were sent: `psa.credit_notices`.

    (no row) ─► sending ─► sent
      │  ▲       │   ▲  └─► uncertain
      │           ▼   │
      │          failed
      ▼           │
    covered ◄─────┘

`sending` is committed before the mail goes out, and `sent` after the server has taken it. A notice that is `covered`
needs no mail: a later one about the same credit stands for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal

from jobbridge.handlers.mailing.once import Outcome
from jobbridge.handlers.sql import Connection, Transaction, one, rows, rows_as, run

#: A job's attempt does not live that long (its timeout is 5 minutes): a notice that has been `sending` longer was
#: left by a process that died.
LONGEST_SENDING = timedelta(minutes=15)

THRESHOLDS = """
SELECT credit_notice_days
FROM psa.providers
WHERE tenant = %(tenant)s
"""

EXPIRING = """
SELECT credit_id, client_id, remaining, issued_on, expires_on
FROM psa.credit_tracking
WHERE tenant = %(tenant)s AND remaining > 0 AND expires_on BETWEEN %(as_of)s AND %(horizon)s
ORDER BY expires_on, credit_id
"""

KNOWN = """
SELECT credit_id, days_before, notice.status
FROM psa.credit_notices AS notice
JOIN psa.credit_tracking AS credit USING (tenant, credit_id)
WHERE tenant = %(tenant)s AND credit.remaining > 0 AND credit.expires_on BETWEEN %(as_of)s AND %(horizon)s
"""

# Only one run gets it: the primary key decides between two at once, the status between attempts. Not if the credit was
# used up, or prolonged, since it was found.
CLAIM = """
INSERT INTO psa.credit_notices AS notice (tenant, credit_id, days_before, status, recipient, message_id, job_id)
SELECT tenant, credit_id, %(days_before)s, 'sending', %(recipient)s, %(message_id)s, %(job_id)s
FROM psa.credit_tracking
WHERE tenant = %(tenant)s AND credit_id = %(credit_id)s AND remaining > 0 AND expires_on = %(expires_on)s
ON CONFLICT (tenant, credit_id, days_before) DO UPDATE
SET status = 'sending', recipient = EXCLUDED.recipient, job_id = EXCLUDED.job_id, reply = NULL,
    claimed_at = now(), settled_at = NULL
WHERE notice.status = 'failed'
"""

COVER = """
INSERT INTO psa.credit_notices AS notice (tenant, credit_id, days_before, status, recipient, message_id, job_id,
    settled_at)
SELECT %(tenant)s, %(credit_id)s, days_before, 'covered', %(recipient)s, %(message_id)s, %(job_id)s, now()
FROM unnest(%(covers)s::integer[]) AS covered (days_before)
ON CONFLICT (tenant, credit_id, days_before) DO UPDATE
SET status = 'covered', recipient = EXCLUDED.recipient, message_id = EXCLUDED.message_id, job_id = EXCLUDED.job_id,
    reply = NULL, settled_at = now()
WHERE notice.status = 'failed'
"""

SETTLE = """
UPDATE psa.credit_notices
SET status = %(status)s, reply = %(reply)s, settled_at = now()
WHERE tenant = %(tenant)s AND credit_id = %(credit_id)s AND days_before = %(days_before)s
  AND job_id = %(job_id)s AND status = 'sending'
"""

# Left by a process that died: this job's own earlier attempt, or another job long ago. This job tells of it, once.
DOUBT = """
UPDATE psa.credit_notices
SET status = 'uncertain', job_id = %(job_id)s, settled_at = now()
WHERE tenant = %(tenant)s
  AND status = 'sending'
  AND (job_id = %(job_id)s OR claimed_at < clock_timestamp() - %(longest)s::interval)
"""

UNCERTAIN = """
SELECT credit_id, days_before, recipient, message_id
FROM psa.credit_notices
WHERE tenant = %(tenant)s AND job_id = %(job_id)s AND status = 'uncertain'
ORDER BY credit_id, days_before
"""

SENT_BY_JOB = """
SELECT credit_id, recipient
FROM psa.credit_notices
WHERE tenant = %(tenant)s AND job_id = %(job_id)s AND status = 'sent'
ORDER BY credit_id
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExpiringCredit:
    credit_id: str
    client_id: str
    remaining: Decimal
    issued_on: date
    expires_on: date


@dataclass(frozen=True, kw_only=True, slots=True)
class DueNotice:
    """A notice to be sent.

    Attributes:
        days_before: The threshold that it is for: of those that are reached, the nearest to the expiry.
        covers: Earlier thresholds that had no notice.
    """

    credit: ExpiringCredit
    days_before: int
    covers: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class UncertainNotice:
    credit_id: str
    days_before: int
    recipient: str
    message_id: str


def due_notice(
    credit: ExpiringCredit, thresholds: Iterable[int], known: Mapping[int, str], today: date
) -> DueNotice | None:
    """Give the notice that a credit needs today.

    A threshold whose day has passed while nothing ran is caught up: one notice, of the nearest threshold, stands for
    all that were missed. A threshold whose day came before the credit was issued was not missed.

    Args:
        known: The status of earlier notices, by threshold.
    """
    reached = sorted(
        days
        for days in set(thresholds)
        if credit.issued_on <= credit.expires_on - timedelta(days=days) <= today <= credit.expires_on
    )
    if not reached or known.get(reached[0], "failed") != "failed":
        return None
    covers = tuple(days for days in reached[1:] if known.get(days, "failed") == "failed")
    return DueNotice(credit=credit, days_before=reached[0], covers=covers)


def due_notices(connection: Connection, tenant: str, today: date) -> list[DueNotice]:
    """Give the notices that are to be sent today, what expires first first."""
    found = one(connection, THRESHOLDS, {"tenant": tenant})
    thresholds: list[int] = found[0] if found else []
    if not thresholds:
        return []
    window: dict[str, object] = {
        "tenant": tenant, "as_of": today, "horizon": today + timedelta(days=max(thresholds))
    }  # fmt: skip
    known: dict[str, dict[int, str]] = {}
    for credit_id, days_before, status in rows(connection, KNOWN, window):
        known.setdefault(credit_id, {})[days_before] = status
    credits = rows_as(ExpiringCredit, connection, EXPIRING, window)
    due = (due_notice(credit, thresholds, known.get(credit.credit_id, {}), today) for credit in credits)
    return [notice for notice in due if notice is not None]


def doubtful_notices(connection: Connection, tenant: str, job_id: str) -> list[UncertainNotice]:
    """Take note of notices whose process died, and give those that this job must tell of."""
    parameters = {"tenant": tenant, "job_id": job_id, "longest": LONGEST_SENDING}
    run(connection, DOUBT, parameters)
    return rows_as(UncertainNotice, connection, UNCERTAIN, parameters)


def recipients_of_job(connection: Connection, tenant: str, job_id: str) -> dict[str, str]:
    """Give whom this job has sent notices to, by credit."""
    return dict(rows(connection, SENT_BY_JOB, {"tenant": tenant, "job_id": job_id}))


class NoticeTaken(Exception):
    """Another job sends this notice, or it is not due any more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NoticeRow:
    """The row of one notice, as `send_claimed` wants it."""

    transaction: Transaction
    tenant: str
    job_id: str
    notice: DueNotice
    recipient: str
    message_id: str

    def claim(self) -> None:
        with self.transaction() as connection:
            if run(connection, CLAIM, self._parameters()) != 1:
                raise NoticeTaken
            run(connection, COVER, self._parameters())

    def settle(self, outcome: Outcome, reply: str) -> None:
        with self.transaction() as connection:
            run(connection, SETTLE, self._parameters() | {"status": outcome, "reply": reply})

    def _parameters(self) -> dict[str, object]:
        return {
            "tenant": self.tenant,
            "job_id": self.job_id,
            "credit_id": self.notice.credit.credit_id,
            "expires_on": self.notice.credit.expires_on,
            "days_before": self.notice.days_before,
            "covers": list(self.notice.covers),
            "recipient": self.recipient,
            "message_id": self.message_id,
        }
