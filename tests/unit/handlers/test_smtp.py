from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from uuid import UUID

import pytest

from jobbridge.errors import ConfigurationError
from jobbridge.handlers.invoicing.mail import invoice_mail, message_id_for
from jobbridge.handlers.invoicing.outbox import MailKey
from jobbridge.handlers.mailing.recipients import Recipient
from jobbridge.handlers.mailing.smtp import SmtpServer, _wire_form
from tests.books import invoice, provider

KEY = MailKey(tenant="t", job_id="j", invoice_id=UUID(int=1))


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("smtp://mail", SmtpServer(scheme="smtp", host="mail", port=25)),
        (
            "smtp+starttls://u:p%40ss@mail",
            SmtpServer(scheme="smtp+starttls", host="mail", port=587, user="u", password="p@ss"),
        ),
        ("smtps://mail:4650", SmtpServer(scheme="smtps", host="mail", port=4650)),
    ],
)
def test_a_mail_server_is_named_by_a_url(url: str, server: SmtpServer) -> None:
    assert SmtpServer.parse(url) == server


@pytest.mark.parametrize(
    "url", ["", "mail:25", "http://mail", "smtp://", "smtp://mail:port", "smtp://mail:99999"]
)
def test_a_url_that_names_no_mail_server_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="SMTP_URL") as caught:
        SmtpServer.parse(url)
    assert "smtp://host:25" in caught.value.hint


def test_a_mail_server_is_shown_without_its_password() -> None:
    assert str(SmtpServer.parse("smtps://user:secret@mail")) == "smtps://mail:465"


def test_a_mail_keeps_its_id_over_attempts_and_has_another_in_each_job() -> None:
    first = message_id_for(KEY, "billing@harbour-it.example")

    assert first == message_id_for(KEY, "billing@harbour-it.example")
    assert first.endswith("@harbour-it.example>")
    assert first != message_id_for(
        MailKey(tenant="t", job_id="k", invoice_id=KEY.invoice_id), "billing@x.example"
    )


def test_a_mail_says_what_to_pay_and_carries_the_pdf() -> None:
    mail = invoice_mail(
        invoice().head,
        provider(),
        Recipient(name="Aoife\r\nBcc: all@example.org", email="aoife@acme.example"),
        sender="billing@harbour-it.example",
        message_id="<1@harbour-it.example>",
        sent_at=datetime(2026, 11, 1, tzinfo=UTC),
        pdf=b"%PDF-1.4",
    )

    parsed = message_from_bytes(_wire_form(mail).removesuffix(b"\r\n.\r\n"), policy=policy.default)
    assert parsed["Bcc"] is None
    assert parsed["From"] == "Harbour IT Services Ltd <billing@harbour-it.example>"
    assert parsed["Reply-To"] == "Harbour IT Services Ltd <accounts@harbour-it.example>"
    assert parsed["Subject"] == "Invoice INV-00001 from Harbour IT Services Ltd"
    body = parsed.get_body()
    assert body is not None
    assert "Please pay EUR 1,230.00 by 30 November 2026" in body.get_content()
    (attachment,) = parsed.iter_attachments()
    assert (attachment.get_filename(), attachment.get_content()) == ("INV-00001.pdf", b"%PDF-1.4")


def test_a_line_of_one_dot_does_not_end_the_mail() -> None:
    mail = EmailMessage()
    mail["From"], mail["To"] = "b@harbour-it.example", "a@acme.example"
    mail.set_content("one\n.\n..two\n")

    wire = _wire_form(mail)

    assert b"\r\n..\r\n...two" in wire
    assert wire.count(b"\r\n.\r\n") == 1
    assert b"\n" not in wire.replace(b"\r\n", b"")
