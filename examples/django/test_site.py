"""The site with workers: the test runs inline, on a Celery worker and on a Temporal worker; see pytest.ini."""

from django.test import Client
from shop.models import Order

from jobbridge.testing import drain


def test_an_order_is_confirmed_by_its_job(site):
    taken = Client().post("/orders", {"item": "tea"}).json()
    drain(raise_on_failure=True)

    assert Order.objects.get(pk=taken["order"]).state == "confirmed"
