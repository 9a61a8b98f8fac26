"""`generate-invoice` on real tables."""

from concurrent.futures import ThreadPoolExecutor
from datetime import date
from decimal import Decimal

import pytest

from jobbridge.handlers.dataset import (
    BILLABLE_CLIENTS,
    CLIENT_WITH_UNAPPROVED_TIME,
    CLIENT_WITHOUT_ADDRESS,
    CLIENT_WITHOUT_RATE,
    FREE_CLIENT,
    MONTH,
)
from jobbridge.handlers.errors import Refusal, UnknownProvider
from jobbridge.handlers.invoicing.errors import (
    NoBillingAddress,
    NoRate,
    UnapprovedTime,
    UnknownClient,
    WindowAlreadyBilled,
)
from jobbridge.handlers.invoicing.generate import bill_window
from jobbridge.handlers.invoicing.invoices import read_invoice
from jobbridge.handlers.invoicing.models import Period
from tests.books import Books

#: Whose books there are: see conftest.py.
TENANTS = ("t1",)


def test_the_month_of_each_client_is_billed(books: Books) -> None:
    invoices = books.bill_all()

    assert [(invoice.number, invoice.total) for invoice in invoices] == [
        ("INV-2026-00001", Decimal("6679.58")),
        ("INV-2026-00002", Decimal("3451.38")),
        ("INV-2026-00003", Decimal("31611.49")),
        ("INV-2026-00004", Decimal("7415.53")),
        ("INV-2026-00005", Decimal("1654.56")),
        ("INV-2026-00006", Decimal("1932.96")),
    ]
    assert all(invoice.issued_on == MONTH.end for invoice in invoices)
    assert invoices[1].due_on == date(2026, 11, 14)


def test_an_invoice_goes_to_the_billing_location_and_abroad_names_the_country(books: Books) -> None:
    assert books.bill("greenfield").bill_to == [
        "Greenfield Foods plc",
        "PO Box 41, Blackpool Retail Park",
        "T23 E8K6 Cork",
    ]
    assert books.bill("soehne").bill_to[-1] == "Germany"


def test_only_approved_billable_time_of_the_window_is_billed(books: Books) -> None:
    invoice = books.bill("northwind")

    with books.transaction() as connection:
        entries = read_invoice(connection, "t1", invoice.invoice_id).entries
    approved = """
        SELECT count(*) FROM psa.time_entries
        WHERE client_id = 'northwind' AND approval = 'approved' AND is_billable
    """
    assert len(entries) == books.value(approved) == 53
    left = "SELECT count(*) FROM psa.time_entries WHERE client_id = 'northwind' AND invoice_id IS NULL"
    assert books.value(left) == 2  # goodwill, and one that was rejected


def test_what_is_stored_adds_up(books: Books) -> None:
    for head in books.bill_all():
        with books.transaction() as connection:
            invoice = read_invoice(connection, "t1", head.invoice_id)
        assert sum(line.net for line in invoice.lines) == head.subtotal
        assert sum(tax.tax for tax in invoice.taxes) == head.tax


def test_a_bucket_keeps_what_was_used_and_what_was_carried_over(books: Books) -> None:
    books.bill("brigid")

    usage = """
        SELECT ARRAY[included_minutes, rolled_over_minutes, used_minutes, overage_minutes] FROM psa.bucket_usage
        WHERE contract_line_id = 'brigid-bucket' AND period_start = '2026-10-01'
    """
    included, carried, used, beyond = books.value(usage)
    assert (included, carried) == (720, 120)
    assert used > included
    assert beyond == max(0, used - included - carried)


def test_the_same_job_again_gives_the_same_invoice(books: Books) -> None:
    first = books.bill("northwind", job="job-1")
    with books.transaction() as connection:
        again = bill_window(connection, "t1", "job-1", "northwind", MONTH)

    assert (again.outcome, again.invoice) == ("existing", first)
    assert books.value("SELECT count(*) FROM psa.invoices") == 1
    assert books.value("SELECT last_number FROM psa.invoice_counters") == 1


def test_a_job_that_dies_before_its_commit_leaves_no_trace_and_no_gap(books: Books) -> None:
    with books.transaction() as connection:
        bill_window(connection, "t1", "job-1", "northwind", MONTH)
        connection.rollback()
    assert books.value("SELECT count(*) FROM psa.time_entries WHERE invoice_id IS NOT NULL") == 0

    assert books.bill("northwind", job="job-1").number == "INV-2026-00001"


@pytest.mark.parametrize(
    "window",
    [
        MONTH,
        Period(start=date(2026, 10, 31), end=date(2026, 11, 30)),
        Period(start=date(2026, 9, 1), end=date(2026, 10, 1)),
        Period(start=date(2026, 10, 10), end=date(2026, 10, 12)),
    ],
    ids=str,
)
def test_days_that_are_billed_are_not_billed_again(books: Books, window: Period) -> None:
    invoice = books.bill("northwind")

    with pytest.raises(WindowAlreadyBilled, match=invoice.number):
        books.bill("northwind", window=window, job="another")


def test_the_next_window_may_be_billed(books: Books) -> None:
    books.bill("oakfield")

    november = books.bill(
        "oakfield", window=Period(start=date(2026, 11, 1), end=date(2026, 11, 30)), job="november"
    )

    assert november.number == "INV-2026-00002"
    assert november.subtotal == Decimal("25.96")  # 16 minutes on 2 November


def test_a_voided_invoice_frees_its_days_and_its_time(books: Books) -> None:
    voided = books.bill("northwind")
    books.run("UPDATE psa.invoices SET status = 'void'")

    again = books.bill("northwind", job="another")

    assert again.number == "INV-2026-00002"
    assert again.total == voided.total


@pytest.mark.parametrize(
    ("client_id", "error", "says"),
    [
        (CLIENT_WITHOUT_ADDRESS, NoBillingAddress, "Ballymore Logistics Ltd"),
        (CLIENT_WITH_UNAPPROVED_TIME, UnapprovedTime, "3 time entries"),
        (CLIENT_WITHOUT_RATE, NoRate, "tara-video"),
        ("nobody", UnknownClient, "'nobody'"),
    ],
)
def test_what_the_books_do_not_allow_is_refused(
    books: Books, client_id: str, error: type[Refusal], says: str
) -> None:
    with pytest.raises(error, match=says) as caught:
        books.bill(client_id)

    assert caught.value.hint
    assert books.value("SELECT count(*) FROM psa.invoices") == 0
    assert books.value("SELECT count(*) FROM psa.invoice_counters") == 0


def test_a_tenant_without_a_letterhead_is_refused(books: Books) -> None:
    books.run("DELETE FROM psa.providers")

    with pytest.raises(UnknownProvider, match="'t1'"):
        books.bill("northwind")


def test_a_month_that_comes_to_nothing_follows_the_clients_rule(books: Books) -> None:
    with books.transaction() as connection:
        suppressed = bill_window(connection, "t1", "job-1", FREE_CLIENT, MONTH)
    assert (suppressed.outcome, suppressed.invoice) == ("suppressed", None)

    books.run("UPDATE psa.clients SET zero_amount_rule = 'issue' WHERE client_id = %s", FREE_CLIENT)
    invoice = books.bill(FREE_CLIENT, job="job-2")
    assert (invoice.number, invoice.total, invoice.status) == ("INV-2026-00001", Decimal("0.00"), "paid")


def test_two_jobs_for_one_window_make_one_invoice(books: Books) -> None:
    def bill(job: str) -> str:
        try:
            return books.bill("greenfield", job=job).number
        except WindowAlreadyBilled as refusal:
            return f"refused: {str(refusal).partition('invoice ')[2].split()[0]}"

    with ThreadPoolExecutor(4) as pool:
        outcomes = sorted(pool.map(bill, ["job-1", "job-2", "job-3", "job-4"]))

    assert outcomes == ["INV-2026-00001", *["refused: INV-2026-00001"] * 3]


def test_the_same_job_twice_at_once_makes_one_invoice(books: Books) -> None:
    with ThreadPoolExecutor(4) as pool:
        invoices = list(pool.map(lambda _: books.bill("greenfield", job="job-1"), range(4)))

    assert len({invoice.invoice_id for invoice in invoices}) == 1


def test_numbers_have_no_gaps_when_many_bill_at_once(books: Books) -> None:
    def bill(client_id: str) -> str | None:
        try:
            return books.bill(client_id).number
        except Refusal:
            return None

    with ThreadPoolExecutor(8) as pool:
        refused = [CLIENT_WITHOUT_RATE, CLIENT_WITHOUT_ADDRESS]
        numbers = sorted(filter(None, pool.map(bill, [*refused, *BILLABLE_CLIENTS])))

    assert numbers == [f"INV-2026-{number:05}" for number in range(1, 7)]


def test_tenants_do_not_see_each_other(database_url: str) -> None:
    books = Books(database_url, "t1", "t2")

    ours, theirs = books.bill("northwind", tenant="t1"), books.bill("northwind", tenant="t2")

    assert ours.number == theirs.number == "INV-2026-00001"
    assert ours.invoice_id != theirs.invoice_id
    assert (
        books.value(
            "SELECT count(*) FROM psa.time_entries WHERE tenant = 't2' AND invoice_id = %s", ours.invoice_id
        )
        == 0
    )
