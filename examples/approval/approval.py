"""An invoice goes out when somebody has approved it, by a link in a mail. After two days that person is reminded."""

from datetime import timedelta

from jobbridge import TIMED_OUT, Celery, JobContext, job

app = Celery("approval")

#: A real project sends mails with `smtplib`; here they can be read.
outbox: list[tuple[str, str]] = []


def mail(to: str, text: str) -> None:
    outbox.append((to, text))


@job("invoice.approve")
def approve(ctx: JobContext, invoice: dict) -> str:
    """Ask for approval and wait for it, for as long as it takes: no worker is held meanwhile."""
    boss, title = invoice["approver"], f"Invoice {invoice['number']}"
    link = ctx.event_link("approval", expires_in=timedelta(days=90))
    ctx.run("ask", mail, boss, f"{title}: {link}")
    answer = ctx.wait_for("approval", timeout=timedelta(days=2))
    if answer is TIMED_OUT:
        ctx.run("remind", mail, boss, f"{title} still waits for you: {link}")
        answer = ctx.wait_for("approval")
    if answer["choice"] != "approve":
        return f"declined: {answer['comment']}"
    ctx.run("send", mail, invoice["customer"], f"{title}: {invoice['total']} EUR")
    return "sent"
