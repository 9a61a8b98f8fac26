"""Each test runs inline, on a Celery worker and on a Temporal worker: see pytest.ini. Two days pass in no time."""

import re

import approval
from starlette.testclient import TestClient

from jobbridge.dashboard.application import make_dashboard

INVOICE = {"number": 7, "approver": "boss@example.com", "customer": "ada@example.com", "total": "119.00"}


def answer(text: str, **form: str) -> str:
    """Follow the link of a mail, and send the form of its page."""
    path = re.search(r"https://jobs\.example\.com(/public/events/\S+)", text)[1]
    with TestClient(make_dashboard(approval.app)) as browser:
        page = browser.get(path).text
        token = re.search(r'name="form_token" value="(\w+)"', page)
        return browser.post(path, data={**form, "form_token": token[1]}).text if token else page


def test_an_approved_invoice_is_sent(jobbridge, outbox):
    job = approval.approve.delay(INVOICE)
    jobbridge.drain()
    assert jobbridge.job(job).status == "waiting"

    (_, asked) = outbox[0]
    assert "Already answered" in answer(asked, choice="approve")
    jobbridge.drain()

    assert job.get(timeout=30) == "sent"
    assert [to for to, _ in outbox] == ["boss@example.com", "ada@example.com"]
    assert "Already answered" in answer(asked)


def test_a_declined_one_is_not(jobbridge, outbox):
    job = approval.approve.delay(INVOICE)
    jobbridge.drain()

    answer(outbox[0][1], choice="decline", comment="too much")
    jobbridge.drain()

    assert job.get(timeout=30) == "declined: too much"
    assert len(outbox) == 1


def test_who_does_not_answer_is_reminded_once(jobbridge, outbox):
    job = approval.approve.delay(INVOICE)
    jobbridge.drain()

    jobbridge.clock.travel("2 days")
    assert [to for to, _ in outbox] == ["boss@example.com"] * 2

    jobbridge.clock.travel("30 days")
    answer(outbox[1][1], choice="approve")
    jobbridge.drain()

    assert job.get(timeout=30) == "sent"
    assert len(outbox) == 3
