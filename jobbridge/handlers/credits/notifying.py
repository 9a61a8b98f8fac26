"""`expiring-credits-notification`: tell clients that a credit is about to expire, once per credit and threshold.

As with invoices (see `jobbridge.handlers.invoicing.mailer`), a notice is **never sent a second time**. The outbox row
belongs to credit and threshold, not to the job: so it holds from day to day. Step by step, what if the process dies in
between, or the job comes twice?

- Dies before the claim (`sending` in the outbox, committed when the server has accepted both addresses): nothing was
  sent; the next attempt, or the next day's job, sends it. Days on which nothing ran are caught up in the same way.
- Dies after the claim, before the mark (`sent`): nobody can know whether it was sent. The next attempt marks it
  `uncertain`, does not send it, fails at the end and names the recipient and the Message-ID. If there is no next
  attempt, the next day's job does that. It is told once; the credit's later thresholds are not affected.
- Dies after the mark: the next attempt finds `sent`, and does not send.
- The server says no, or is gone before it has the mail: `failed`; the next attempt, or the next day's job, sends it.
- The same job, or two, run at once: a credit's threshold has one row, and one of the two gets it.
- The thresholds that a notice stands for are marked in the claim's transaction: a credit never gets two on one day.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import UTC, date, datetime
from email.message import EmailMessage
from typing import Any

from jobbridge import FanOut, JobContext, job
from jobbridge.handlers.batches import RETRY, Context, for_each
from jobbridge.handlers.credits.notices import (
    DueNotice,
    NoticeRow,
    NoticeTaken,
    doubtful_notices,
    due_notices,
    recipients_of_job,
)
from jobbridge.handlers.job_data import DailyJob
from jobbridge.handlers.mailing.composing import Envelope, compose
from jobbridge.handlers.mailing.errors import MailUncertain
from jobbridge.handlers.mailing.once import send_claimed
from jobbridge.handlers.mailing.recipients import Recipient, recipient_of
from jobbridge.handlers.mailing.smtp import MailSender, SmtpServer
from jobbridge.handlers.money import amount_text, date_text
from jobbridge.handlers.providers import Provider, day_of, provider_of
from jobbridge.handlers.sql import Connection, rows
from jobbridge.handlers.tenants import over_tenants

#: Daily, for each tenant: when people read mail.
SCHEDULE = "0 9 * * *"

_MESSAGE_IDS = uuid.UUID("c5b9d0de-6e43-5d5e-9d6c-3f6e0e1a7a52")

# A day less than UTC's: some zones are behind it.
TENANTS = """
SELECT DISTINCT tenant
FROM psa.credit_tracking
WHERE remaining > 0 AND expires_on >= (clock_timestamp() AT TIME ZONE 'UTC')::date - 1
ORDER BY tenant
"""


@job("expiring-credits-notification", retry=RETRY, schedule=SCHEDULE)
def expiring_credits_notification(ctx: JobContext, data: DailyJob) -> dict[str, Any] | FanOut:
    """Tell a tenant's clients by mail which of their credits are about to expire."""
    children = over_tenants(ctx, data, tenants_with_credits_that_expire)
    if children is not None:
        return children
    server = SmtpServer.parse(ctx.settings.smtp_url)
    return notify_clients(ctx, data.as_of, server=server, mail_from=ctx.settings.mail_from)


def tenants_with_credits_that_expire(connection: Connection) -> list[str]:
    """Give the tenants for which the job may find something today."""
    return [tenant for (tenant,) in rows(connection, TENANTS, {})]


def notify_clients(ctx: Context, as_of: date | None, *, server: SmtpServer, mail_from: str) -> dict[str, Any]:
    """Send each notice that is due on `as_of`.

    Raises:
        PartlyFailed: Some were not sent, or not certainly; the others are.
    """
    day = day_of(ctx.transaction, ctx.tenant_id, as_of)
    with ctx.transaction() as connection:
        doubtful = doubtful_notices(connection, ctx.tenant_id, ctx.job_id)
    with ctx.transaction() as connection:
        due = due_notices(connection, ctx.tenant_id, day)
    with MailSender(server) as sender:
        notifier = Notifier(ctx=ctx, today=day, sender=sender, mail_from=mail_from)
        batch = for_each(
            ctx,
            "notify",
            {f"{notice.credit.credit_id} {notice.days_before}": notice for notice in due},
            notifier.notify,
        )
    for notice in doubtful:
        batch.failures[f"{notice.credit_id} {notice.days_before}"] = MailUncertain.about(
            notice.recipient, notice.message_id
        )
    batch.raise_failures("notices were not sent, or not certainly")
    with ctx.transaction() as connection:
        recipients = recipients_of_job(connection, ctx.tenant_id, ctx.job_id)
    ctx.progress(1, 1, f"{len(recipients)} notices sent")
    return {"as_of": str(day), "sent": len(recipients), "recipients": recipients}


@dataclass(frozen=True, kw_only=True, slots=True)
class Notifier:
    """Sends the notices of one job."""

    ctx: Context
    today: date
    sender: MailSender
    mail_from: str

    def notify(self, notice: DueNotice) -> dict[str, Any]:
        """Send a notice, unless another job does.

        Raises:
            Refusal: There is no recipient, or no letterhead.
            MailError: It was not sent, or not certainly.
        """
        tenant = self.ctx.tenant_id
        with self.ctx.transaction() as connection:
            recipient = recipient_of(connection, tenant, notice.credit.client_id)
            provider = provider_of(connection, tenant)
        mail = self._written(notice, provider, recipient)
        row = NoticeRow(
            transaction=self.ctx.transaction,
            tenant=tenant,
            job_id=self.ctx.job_id,
            notice=notice,
            recipient=recipient.email,
            message_id=str(mail["Message-ID"]),
        )
        try:
            send_claimed(self.sender, mail, row, mail_from=self.mail_from, recipient=recipient.email)
        except NoticeTaken:
            return {"recipient": None}
        return {"recipient": recipient.email}

    def _written(self, notice: DueNotice, provider: Provider, recipient: Recipient) -> EmailMessage:
        credit = notice.credit
        name = uuid.uuid5(_MESSAGE_IDS, f"{self.ctx.tenant_id}\n{credit.credit_id}\n{notice.days_before}")
        envelope = Envelope(
            provider=provider,
            recipient=recipient,
            sender=self.mail_from,
            message_id=f"<credit.{name}@{self.mail_from.rpartition('@')[2]}>",
            sent_at=datetime.now(UTC),
        )
        amount = f"{provider.currency} {amount_text(credit.remaining)}"
        when = _when((credit.expires_on - self.today).days)
        return compose(
            envelope,
            subject=f"Your credit of {amount} expires {when}",
            text=(
                f"Hello,\n\n"
                f"{amount} are left of your credit of {date_text(credit.issued_on)}.\n"
                f"You can use it until {date_text(credit.expires_on)}: it expires {when}.\n\n"
                f"Any question? Just reply to this mail, or call {provider.phone}.\n\n"
                f"Kind regards\n{provider.name}\n"
            ),
        )


def _when(days: int) -> str:
    match days:
        case 0:
            return "today"
        case 1:
            return "tomorrow"
        case _:
            return f"in {days} days"
