"""Invoices by mail, against a real mail server and real tables: each once, whatever goes wrong."""

from collections.abc import Iterator
from io import BytesIO

import pytest
from pypdf import PdfReader

from jobbridge.dev.process import free_port
from jobbridge.handlers.invoicing.mailer import InvoiceMailer
from jobbridge.handlers.invoicing.models import InvoiceHead
from jobbridge.handlers.invoicing.outbox import MailKey, claim_mail
from jobbridge.handlers.mailing.errors import (
    BadAddress,
    MailDeferred,
    MailRefused,
    MailServerUnavailable,
    MailUncertain,
    NoRecipient,
)
from jobbridge.handlers.mailing.smtp import MailSender, SmtpServer
from tests.books import Books
from tests.mail_server import HANG_UP, MailServer, run_mail_server

#: Whose books there are: see conftest.py.
TENANTS = ("t1",)


@pytest.fixture
def server() -> Iterator[MailServer]:
    with run_mail_server() as server:
        yield server


def mail(books: Books, url: str, *invoices: InvoiceHead, job: str = "mail") -> list[str]:
    """Mail invoices as one attempt of the job would."""
    with MailSender(SmtpServer.parse(url)) as sender:
        mailer = InvoiceMailer(
            transaction=books.transaction,
            tenant="t1",
            job_id=job,
            mail_from="billing@harbour-it.example",
            sender=sender,
        )
        return [mailer.mail_once(invoice) for invoice in invoices]


def status(books: Books) -> str:
    found: str = books.value("SELECT status FROM psa.invoice_emails")
    return found


@pytest.mark.parametrize(
    ("client_id", "address"),
    [
        ("northwind", "aoife.nibhriain@northwind.example"),  # the billing contact
        ("lakeside", "accounts@lakeside-dental.example"),  # no contact: the billing e-mail
        ("oakfield", "finance@oakfield-cu.example"),  # the contact has left
        ("soehne", "rechnung@bauer-soehne.example"),  # neither: the location
    ],
)
def test_the_recipient_is_the_contact_else_the_billing_mail_else_the_location(
    books: Books, server: MailServer, client_id: str, address: str
) -> None:
    assert mail(books, server.url, books.bill(client_id)) == [address]
    assert server.recipients == [address]


def test_a_client_without_any_address_is_refused(books: Books, server: MailServer) -> None:
    invoice = books.bill("lakeside")
    books.run("UPDATE psa.clients SET billing_email = '' WHERE client_id = 'lakeside'")

    with pytest.raises(NoRecipient, match="'lakeside'"):
        mail(books, server.url, invoice)
    assert server.connections == 0


@pytest.mark.parametrize(
    "email", ["two words@x.example", "a@b@c.example", "a@", "<a@x.example>", "a@x.example\nBcc: b"]
)
def test_what_is_no_address_is_refused_before_the_server_is_asked(
    books: Books, server: MailServer, email: str
) -> None:
    invoice = books.bill("lakeside")
    books.run("UPDATE psa.clients SET billing_email = %s WHERE client_id = 'lakeside'", email)

    with pytest.raises((BadAddress, NoRecipient)) as caught:
        mail(books, server.url, invoice)

    assert "Lakeside Dental Practice" in str(caught.value) or isinstance(caught.value, NoRecipient)
    assert server.connections == 0


def test_the_mail_carries_the_pdf_of_the_invoice(books: Books, server: MailServer) -> None:
    invoice = books.bill("northwind")

    mail(books, server.url, invoice)

    (received,) = server.mails
    assert received["From"] == "Harbour IT Services Ltd <billing@harbour-it.example>"
    assert received["To"] == "Aoife Ní Bhriain <aoife.nibhriain@northwind.example>"
    (pdf,) = received.iter_attachments()
    assert pdf.get_filename() == "INV-2026-00001.pdf"
    assert "6,679.58" in PdfReader(BytesIO(pdf.get_content())).pages[0].extract_text()


def test_one_connection_carries_all_mails_of_a_job(books: Books, server: MailServer) -> None:
    mail(books, server.url, *books.bill_all())

    assert (len(server.mails), server.connections) == (6, 1)


def test_a_retry_does_not_send_again(books: Books, server: MailServer) -> None:
    invoice = books.bill("northwind")
    mail(books, server.url, invoice)

    assert mail(books, server.url, invoice) == ["aoife.nibhriain@northwind.example"]
    assert len(server.mails) == 1


def test_another_job_sends_again_under_another_message_id(books: Books, server: MailServer) -> None:
    invoice = books.bill("northwind")

    mail(books, server.url, invoice, job="first")
    mail(books, server.url, invoice, job="second")

    assert len({received["Message-ID"] for received in server.mails}) == 2


@pytest.mark.parametrize(
    ("place", "answer"), [("at_rcpt", "450 busy"), ("at_data", "451 later"), ("at_rcpt", HANG_UP)]
)
def test_what_was_certainly_not_sent_is_sent_by_the_next_attempt(
    books: Books, server: MailServer, place: str, answer: str
) -> None:
    invoice = books.bill("northwind")
    setattr(server, place, lambda recipient: answer)
    with pytest.raises((MailDeferred, MailServerUnavailable)):
        mail(books, server.url, invoice)
    assert server.mails == []

    setattr(server, place, lambda recipient: None)
    mail(books, server.url, invoice)

    assert len(server.mails) == 1
    assert status(books) == "sent"


@pytest.mark.parametrize(
    ("place", "answer"), [("at_rcpt", "550 no such user"), ("at_data", "554 not wanted")]
)
def test_a_mail_that_is_refused_says_what_the_server_said(
    books: Books, server: MailServer, place: str, answer: str
) -> None:
    setattr(server, place, lambda recipient: answer)

    with pytest.raises(MailRefused, match=answer):
        mail(books, server.url, books.bill("northwind"))


def test_after_a_refusal_the_next_mail_goes_out(books: Books, server: MailServer) -> None:
    bad, good = books.bill("northwind"), books.bill("lakeside")
    server.at_rcpt = lambda recipient: "550 no such user" if "northwind" in recipient else None

    with MailSender(SmtpServer.parse(server.url)) as sender:
        mailer = InvoiceMailer(
            transaction=books.transaction, tenant="t1", job_id="mail", mail_from="b@h.example", sender=sender
        )
        with pytest.raises(MailRefused):
            mailer.mail_once(bad)
        mailer.mail_once(good)

    assert server.recipients == ["accounts@lakeside-dental.example"]


def test_a_mail_in_doubt_is_not_sent_again_but_reported_by_its_id(books: Books, server: MailServer) -> None:
    """The server took it and hung up before it said so."""
    invoice = books.bill("northwind")
    server.at_data = lambda recipient: HANG_UP
    with pytest.raises(MailUncertain):
        mail(books, server.url, invoice)
    (delivered,) = server.mails

    server.at_data = lambda recipient: None
    with pytest.raises(MailUncertain) as caught:
        mail(books, server.url, invoice)

    assert len(server.mails) == 1
    assert delivered["Message-ID"] in str(caught.value)
    assert "log" in caught.value.hint


def test_a_mail_whose_attempt_died_while_sending_is_not_sent_again(books: Books, server: MailServer) -> None:
    invoice = books.bill("northwind")
    key = MailKey(tenant="t1", job_id="mail", invoice_id=invoice.invoice_id)
    with books.transaction() as connection:
        assert claim_mail(connection, key, recipient="a@northwind.example", message_id="<1@h>")

    with pytest.raises(MailUncertain, match="<1@h>"):
        mail(books, server.url, invoice)

    assert server.mails == []
    assert status(books) == "sending"


def test_two_runs_at_once_send_one_mail(books: Books, server: MailServer) -> None:
    """The second comes between the first one's look at the outbox and its claim."""
    invoice = books.bill("northwind")
    others: list[str] = []

    def other_run(recipient: str) -> None:
        server.at_rcpt = lambda recipient: None
        others.extend(mail_elsewhere())

    def mail_elsewhere() -> list[str]:
        key = MailKey(tenant="t1", job_id="mail", invoice_id=invoice.invoice_id)
        with books.transaction() as connection:
            claim_mail(connection, key, recipient="other", message_id="<other@h>")
        return ["other"]

    server.at_rcpt = other_run
    with pytest.raises(MailUncertain):
        mail(books, server.url, invoice)

    assert others == ["other"]
    assert server.mails == []
    assert status(books) == "sending"  # the other run's, untouched


def test_a_server_that_is_away_is_asked_once_per_attempt(books: Books) -> None:
    invoices = [books.bill("northwind"), books.bill("lakeside")]
    url = f"smtp://127.0.0.1:{free_port()}"

    with MailSender(SmtpServer.parse(url)) as sender:
        mailer = InvoiceMailer(
            transaction=books.transaction, tenant="t1", job_id="mail", mail_from="b@h.example", sender=sender
        )
        errors = []
        for invoice in invoices:
            with pytest.raises(MailServerUnavailable, match=url) as caught:
                mailer.mail_once(invoice)
            errors.append(caught.value)

    assert errors[0] is errors[1]
    assert "SMTP_URL" in errors[0].hint


def test_an_address_beyond_ascii_is_refused_where_the_server_cannot_take_it(
    books: Books, server: MailServer
) -> None:
    invoice = books.bill("lakeside")
    books.run("UPDATE psa.clients SET billing_email = 'büro@lakeside.example' WHERE client_id = 'lakeside'")

    with pytest.raises(MailRefused, match="addresses beyond ASCII"):
        mail(books, server.url, invoice)


def test_an_address_beyond_ascii_is_served_where_the_server_can(books: Books) -> None:
    invoice = books.bill("lakeside")
    books.run("UPDATE psa.clients SET billing_email = 'büro@lakeside.example' WHERE client_id = 'lakeside'")

    with run_mail_server(takes_unicode=True) as server:
        mail(books, server.url, invoice)

    assert server.recipients == ["büro@lakeside.example"]
    # The email package reads raw UTF-8 in headers as undecoded bytes; mail programs do not.
    header = str(server.mails[0]["To"]).encode("utf-8", "surrogateescape").decode()
    assert header == "Lakeside Dental Practice <büro@lakeside.example>"


@pytest.mark.parametrize("farewell", [HANG_UP, "421 enough mails on this connection"])
def test_a_connection_that_was_closed_between_two_mails_is_opened_again(
    books: Books, server: MailServer, farewell: str
) -> None:
    asked: list[str] = []

    def leave_before_the_second(recipient: str) -> str | None:
        asked.append(recipient)
        return farewell if len(asked) == 2 else None

    server.at_rcpt = leave_before_the_second

    mail(books, server.url, *books.bill_all())

    assert (len(server.mails), len(asked), server.connections) == (6, 7, 2)
