"""Each test runs inline, on a Celery worker and on a Temporal worker: see pytest.ini."""

from datetime import timedelta

import shop

from jobbridge.testing import assert_enqueued


def test_a_cart_is_priced_in_parallel_and_added_up(jobbridge):
    assert shop.checkout("Ada", {"tea": 2, "cup": 1}, discount=10).get(timeout=60) == "Ada pays 12.60"
    assert_enqueued(shop.price_of, count=2, status="completed")


def test_a_carrier_that_does_not_answer_is_asked_again(jobbridge):
    sent = shop.ship.delay("order 7")

    assert sent.get(timeout=60) == "order 7 is on its way, at the attempt 3"
    assert jobbridge.job(sent).attempt == 3


def test_the_books_are_closed_each_night(jobbridge_inline):
    jobbridge_inline.clock.travel(timedelta(days=3))

    assert_enqueued(shop.close_books, count=3, status="completed")
