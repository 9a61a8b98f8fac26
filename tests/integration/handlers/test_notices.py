"""`expiring-credits-notification` against a real mail server: each notice once, whatever goes wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any

import pytest

from jobbridge.dev.process import free_port
from jobbridge.handlers.credits.notices import LONGEST_SENDING
from jobbridge.handlers.credits.notifying import notify_clients, tenants_with_credits_that_expire
from jobbridge.handlers.dataset import TODAY
from jobbridge.handlers.errors import PartlyFailed, PartlyRefused
from jobbridge.handlers.mailing.smtp import SmtpServer
from tests.books import Books
from tests.dying import Died, die_at_each_step
from tests.handler_runs import Attempt, Jobs
from tests.mail_server import HANG_UP, MailServer, run_mail_server

#: Whose books there are: see conftest.py.
TENANTS = ("t1", "t2")

DUE = {
    "cr-oakfield-1": ("finance@oakfield-cu.example", 1),
    "cr-greenfield-1": ("accounts.payable@greenfield.example", 1),
    "cr-soehne-1": ("rechnung@bauer-soehne.example", 7),
    "cr-lakeside-2": ("accounts@lakeside-dental.example", 7),
    "cr-northwind-2": ("aoife.nibhriain@northwind.example", 30),
}


class Office:
    def __init__(self, books: Books, jobs: Jobs, server: MailServer) -> None:
        self.books, self.jobs, self.server = books, jobs, server

    def notify(self, attempt: Attempt | None = None, day: date = TODAY) -> dict[str, Any]:
        return notify_clients(
            attempt or self.jobs.attempt("t1"),
            day,
            server=SmtpServer.parse(self.server.url),
            mail_from="billing@harbour-it.example",
        )

    def notices(self, status: str, tenant: str = "t1") -> set[tuple[str, int]]:
        statement = "SELECT credit_id, days_before FROM psa.credit_notices WHERE tenant = %s AND status = %s"
        return set(self.jobs.table(statement, tenant, status))

    def start_over(self) -> None:
        self.books.run("DELETE FROM psa.credit_notices")
        self.server.mails.clear()
        self.server.recipients.clear()


@pytest.fixture
def office(books: Books) -> Iterator[Office]:
    jobs = Jobs(books.url)
    with run_mail_server() as server:
        yield Office(books, jobs, server)
    jobs.database.close()


def test_each_credit_that_is_about_to_expire_gets_one_notice(office: Office) -> None:
    result = office.notify()

    assert result == {
        "as_of": "2026-10-31",
        "sent": 5,
        "recipients": {credit_id: address for credit_id, (address, _) in sorted(DUE.items())},
    }
    assert office.notices("sent") == {(credit_id, days) for credit_id, (_, days) in DUE.items()}
    assert office.notices("covered") == {
        ("cr-oakfield-1", 7), ("cr-oakfield-1", 30), ("cr-greenfield-1", 7), ("cr-greenfield-1", 30),
        ("cr-soehne-1", 30), ("cr-lakeside-2", 30),
    }  # fmt: skip
    assert office.server.connections == 1


def test_a_notice_says_what_is_left_and_until_when(office: Office) -> None:
    office.notify()

    mails = {str(mail["To"]): mail for mail in office.server.mails}
    mail = mails["Lakeside Dental Practice <accounts@lakeside-dental.example>"]
    assert mail["Subject"] == "Your credit of EUR 75.50 expires in 7 days"
    assert mail["From"] == "Harbour IT Services Ltd <billing@harbour-it.example>"
    text = mail.get_content()
    assert "EUR 75.50 are left of your credit of 7 November 2025." in text
    assert "until 7 November 2026" in text
    subjects = sorted(str(mail["Subject"]).rpartition(" expires ")[2] for mail in office.server.mails)
    assert subjects == ["in 30 days", "in 5 days", "in 7 days", "today", "tomorrow"]


def test_a_second_job_sends_nothing_and_the_next_days_send_what_is_due_then(office: Office) -> None:
    office.notify()
    assert office.notify()["sent"] == 0

    sent = {
        days: list(office.notify(day=TODAY + timedelta(days=days))["recipients"]) for days in range(1, 31)
    }

    assert {days: credits for days, credits in sent.items() if credits} == {
        4: ["cr-soehne-1"],  # tomorrow it expires
        6: ["cr-lakeside-2"],
        23: ["cr-northwind-2"],
        29: ["cr-northwind-2"],
    }
    assert len(office.server.mails) == 5 + 4


def test_another_tenants_clients_get_nothing(office: Office) -> None:
    office.notify()
    assert office.jobs.table("SELECT count(*) FROM psa.credit_notices WHERE tenant = 't2'") == [(0,)]

    assert office.notify(office.jobs.attempt("t2"))["sent"] == 5


def test_the_days_are_those_that_the_tenant_has_set(office: Office) -> None:
    office.books.run("UPDATE psa.providers SET credit_notice_days = '{6}' WHERE tenant = 't1'")

    assert office.notify(day=date(2026, 11, 1))["recipients"].keys() == {
        "cr-lakeside-2", "cr-soehne-1", "cr-greenfield-1"
    }  # fmt: skip
    office.books.run("UPDATE psa.providers SET credit_notice_days = '{}' WHERE tenant = 't2'")
    assert office.notify(office.jobs.attempt("t2"))["sent"] == 0


def test_what_the_server_defers_is_sent_by_the_next_attempt_alone(office: Office) -> None:
    office.server.at_rcpt = lambda recipient: "450 busy" if "lakeside" in recipient else None
    first = office.jobs.attempt("t1")

    with pytest.raises(
        PartlyFailed, match=r"1 of 5 notices were not sent, or not certainly\. cr-lakeside-2 7"
    ):
        office.notify(first)
    office.server.at_rcpt = lambda recipient: None
    result = office.notify(office.jobs.attempt("t1", first.job_id, number=2))

    assert result["sent"] == 5
    assert len(office.server.mails) == 5


def test_what_failed_until_the_next_threshold_is_covered_by_that(office: Office) -> None:
    office.server.at_data = lambda recipient: "450 busy" if "northwind" in recipient else None
    with pytest.raises(PartlyFailed):
        office.notify()
    assert office.notices("failed") == {("cr-northwind-2", 30)}
    office.server.at_data = lambda recipient: None

    office.notify(day=date(2026, 11, 23))

    assert ("cr-northwind-2", 30) in office.notices("covered")
    assert Counter(office.server.recipients)["aoife.nibhriain@northwind.example"] == 1


def test_a_server_that_is_away_fails_the_job_and_nothing_is_lost(office: Office) -> None:
    url, office.server.url = office.server.url, f"smtp://127.0.0.1:{free_port()}"
    with pytest.raises(PartlyFailed, match="5 of 5"):
        office.notify()
    office.server.url = url

    assert office.notify()["sent"] == 5


def test_a_client_without_an_address_does_not_stop_the_others(office: Office) -> None:
    office.books.run("UPDATE psa.clients SET billing_email = '' WHERE client_id = 'lakeside'")

    with pytest.raises(PartlyRefused, match="'lakeside' has no e-mail address"):
        office.notify()

    assert len(office.server.mails) == 4


def test_a_mail_in_doubt_is_told_once_and_never_sent_again(office: Office) -> None:
    office.server.at_data = lambda recipient: HANG_UP if "lakeside" in recipient else None
    first = office.jobs.attempt("t1")

    with pytest.raises(
        PartlyRefused, match=r"<credit\..*> to accounts@lakeside-dental.example may have been sent"
    ):
        office.notify(first)
    office.server.at_data = lambda recipient: None
    with pytest.raises(PartlyRefused, match="may have been sent"):
        office.notify(
            office.jobs.attempt("t1", first.job_id, number=2)
        )  # the job that failed does not complete

    assert office.notify()["sent"] == 0, "the next job has nothing to say about it"
    assert Counter(office.server.recipients).most_common(1)[0][1] == 1
    assert office.notices("uncertain") == {("cr-lakeside-2", 7)}
    assert office.notify(day=date(2026, 11, 6))["recipients"].keys() >= {"cr-lakeside-2"}


def test_wherever_it_dies_the_next_attempt_sends_the_rest_and_nothing_twice(office: Office) -> None:
    in_doubt: list[str] = []

    def live_and_try_again(lives: int) -> None:
        office.start_over()
        first = office.jobs.attempt("t1", lives=lives)
        try:
            office.notify(first)
        except Died:
            try:
                office.notify(office.jobs.attempt("t1", first.job_id, number=2))
            except PartlyRefused as error:
                in_doubt.append(str(error))
            settled = office.notices("sent") | office.notices("uncertain")
            assert settled == {(credit_id, days) for credit_id, (_, days) in DUE.items()}
            assert set(Counter(office.server.recipients).values()) == {1}
            assert len(office.server.recipients) >= len(DUE) - 1
            raise

    lives = die_at_each_step(live_and_try_again)

    assert lives > 30
    assert len(in_doubt) == 2 * len(DUE), "after the claim, and before the mark"
    assert {text.count("may have been sent") for text in in_doubt} == {1}


def test_a_notice_that_another_job_sends_just_now_is_left_to_it_and_told_of_when_that_died(
    office: Office,
) -> None:
    dead = office.jobs.attempt("t1")
    office.books.run(
        """
        INSERT INTO psa.credit_notices (tenant, credit_id, days_before, status, recipient, message_id, job_id)
        VALUES ('t1', 'cr-lakeside-2', 7, 'sending', 'a@b.example', '<id@b>', %s)
        """,
        dead.job_id,
    )
    assert office.notify()["sent"] == 4

    office.books.run("UPDATE psa.credit_notices SET claimed_at = claimed_at - %s", LONGEST_SENDING)
    with pytest.raises(PartlyRefused, match=r"1 of 1 .* <id@b> to a@b.example may have been sent"):
        office.notify()


def test_a_credit_that_is_used_up_while_its_mail_is_announced_gets_none(office: Office) -> None:
    use_up = "UPDATE psa.credit_tracking SET remaining = 0 WHERE credit_id = 'cr-lakeside-2'"
    office.server.at_rcpt = lambda recipient: office.books.run(use_up) if "lakeside" in recipient else None

    assert "cr-lakeside-2" not in office.notify()["recipients"]
    assert len(office.server.mails) == 4


def test_two_jobs_at_once_send_one_notice(office: Office) -> None:
    others: list[dict[str, Any]] = []

    def another_job(recipient: str) -> None:
        if not others:
            others.append({})
            others[0] = office.notify()

    with run_mail_server() as second:
        first, office.server.at_rcpt = office.server, lambda recipient: None
        first.at_rcpt = lambda recipient: _in_the_meantime(office, second, another_job, recipient)
        office.notify()

    assert len(first.mails) + len(second.mails) == 5


def _in_the_meantime(office: Office, second: MailServer, job: Any, recipient: str) -> None:
    first, office.server = office.server, second
    try:
        job(recipient)
    finally:
        office.server = first


def test_tenants_are_found_whose_credits_expire(office: Office) -> None:
    office.books.run(
        "UPDATE psa.credit_tracking SET issued_on = '2020-01-01', expires_on = '2020-01-01' WHERE tenant = 't2'"
    )
    office.books.run("UPDATE psa.credit_tracking SET expires_on = '9999-12-31' WHERE tenant = 't1'")
    with office.books.transaction() as connection:
        assert tenants_with_credits_that_expire(connection) == ["t1"]
