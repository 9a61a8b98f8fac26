"""A shop's background jobs, as Celery tasks. Only the import of the app's class is JobBridge's."""

from celery import chain, chord

from jobbridge import Celery

app = Celery("shop")
app.conf.beat_schedule = {"nightly": {"task": "shop.close_books", "schedule": 86_400.0}}


class Carrier(Exception):
    """The carrier's service does not answer."""


@app.task
def price_of(item: str, number: int) -> int:
    return {"tea": 250, "cup": 900}[item] * number


@app.task
def total(prices: list[int], discount: int = 0) -> int:
    return sum(prices) * (100 - discount) // 100


@app.task
def receipt(cents: int, customer: str) -> str:
    return f"{customer} pays {cents / 100:.2f}"


@app.task(bind=True, autoretry_for=(Carrier,), retry_backoff=False, default_retry_delay=0, max_retries=3)
def ship(self, order: str) -> str:
    if self.request.retries < 2:
        raise Carrier("try again")
    return f"{order} is on its way, at the attempt {self.request.retries + 1}"


@app.task
def close_books() -> str:
    return "closed"


def checkout(customer: str, cart: dict[str, int], discount: int = 0):
    """Price all items at once, then add up, then write the receipt."""
    prices = chord([price_of.s(item, number) for item, number in cart.items()], total.s(discount=discount))
    return chain(prices, receipt.s(customer)).apply_async()
