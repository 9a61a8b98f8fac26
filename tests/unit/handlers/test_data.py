from datetime import date
from uuid import UUID

import pytest
from pydantic import ValidationError

from jobbridge.handlers.invoicing.models import EmailInvoices, GenerateInvoice, Period, ZipInvoices

WINDOW = {"period_start": "2026-10-01", "period_end": "2026-10-31"}
ONE = "00000000-0000-0000-0000-000000000001"
TWO = "00000000-0000-0000-0000-000000000002"


def test_data_is_read_in_python_and_in_json_spelling() -> None:
    ours = GenerateInvoice.model_validate({"client_id": "acme", **WINDOW, "tenant_id": "t"})
    theirs = GenerateInvoice.model_validate(
        {"clientId": "acme", "periodStart": "2026-10-01", "periodEnd": "2026-10-31", "tenantId": "t"}
    )

    assert ours == theirs
    assert ours.window == Period(start=date(2026, 10, 1), end=date(2026, 10, 31))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"period_end": "2026-09-30"}, "is before"),
        ({"period_end": "2027-10-02"}, "longer than a year"),
        ({"client_id": ""}, "at least 1 character"),
        ({"client": "acme"}, "Extra inputs"),
        ({"period_start": "October"}, "valid date"),
    ],
)
def test_data_that_cannot_be_meant_is_refused(changes: dict[str, str], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        GenerateInvoice.model_validate({"client_id": "acme", **WINDOW, **changes})


def test_an_invoice_that_is_asked_for_twice_counts_once() -> None:
    data = ZipInvoices.model_validate({"invoiceIds": [TWO, ONE, TWO]})

    assert data.invoice_ids == (UUID(TWO), UUID(ONE))


@pytest.mark.parametrize("ids", [[], ["INV-1"]])
def test_no_invoice_or_something_else_is_refused(ids: list[str]) -> None:
    with pytest.raises(ValidationError):
        EmailInvoices.model_validate({"invoiceIds": ids})


def test_periods_overlap_in_whole_days() -> None:
    october = Period(start=date(2026, 10, 1), end=date(2026, 10, 31))

    assert october.overlap(Period(start=date(2026, 10, 31), end=date(2026, 12, 1))) == Period(
        start=date(2026, 10, 31), end=date(2026, 10, 31)
    )
    assert october.overlap(Period(start=date(2026, 11, 1), end=date(2026, 12, 1))) is None
    assert date(2026, 10, 31) in october
    assert date(2026, 11, 1) not in october
