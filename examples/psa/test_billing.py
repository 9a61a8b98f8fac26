"""Each test runs inline, on a Celery worker and on a Temporal worker: see pytest.ini."""

import uuid

import billing


def test_a_client_is_billed_once(jobbridge):
    tenant = str(uuid.uuid4())
    billing.open_books(tenant)

    job = billing.bill(tenant, "northwind")

    assert job.result.get(timeout=120)["outcome"] == "created"
    assert billing.invoices_of(tenant) == ["northwind"]
