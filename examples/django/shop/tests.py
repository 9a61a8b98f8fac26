from django.test import TestCase

from jobbridge.testing import JobBridgeMixin, assert_enqueued, refute_enqueued
from shop.models import Order
from shop.tasks import confirm


class TakingOrders(JobBridgeMixin, TestCase):
    def test_an_order_and_its_job(self):
        taken = self.client.post("/orders", {"item": "tea"})

        self.assertEqual(taken.status_code, 201)
        assert_enqueued(confirm, args=[taken.json()["order"]], count=1)
        self.jobbridge.drain(raise_on_failure=True)
        self.assertEqual(Order.objects.get().state, "confirmed")

    def test_what_is_refused_leaves_neither(self):
        self.assertEqual(self.client.post("/orders", {"item": "nothing"}).status_code, 400)
        refute_enqueued(confirm)
        self.assertEqual(Order.objects.count(), 0)
