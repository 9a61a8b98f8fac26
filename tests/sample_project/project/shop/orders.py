"""Orders: calling, retries, results."""

from celery import Task, shared_task
from celery.exceptions import Ignore, SoftTimeLimitExceeded

from shop.app import app
from shop.base import Connected, Noted
from shop.ledger import note


class OutOfStock(Exception):
    pass


@shared_task
def add(x, y):
    return x + y


@app.task
def total(numbers):
    return sum(numbers)


@app.task(bind=True, max_retries=3, default_retry_delay=0)
def charge(self, order, failures):
    """Fails that many times, and is tried again."""
    tries = note(f"charge-{order}")
    if tries <= failures:
        raise self.retry(exc=ConnectionError(f"try {tries}"), countdown=0.1)
    return {"order": order, "tries": tries, "retries": self.request.retries}


@app.task(
    autoretry_for=(ConnectionError,), max_retries=2, retry_backoff=1, retry_backoff_max=1, retry_jitter=False
)
def fetch_rates(order, failures):
    if note(f"rates-{order}") <= failures:
        raise ConnectionError("no rates")
    return "rates"


@app.task(throws=(OutOfStock,))
def reserve(item):
    raise OutOfStock(item)


@app.task(ignore_result=True)
def send_receipt(order):
    note(f"receipt-{order}")
    return "nobody reads this"


@app.task
def note_error(request, exc, traceback):
    note("errors", f"{request.id} {exc}")


@app.task
def note_failed(task_id):
    note("failed", task_id)
    return task_id


@app.task(bind=True)
def describe(self, *args, **kwargs):
    request = self.request
    return {
        "id": request.id,
        "args": list(args),
        "kwargs": kwargs,
        "retries": request.retries,
        "eager": request.is_eager,
        "parent": request.parent_id,
        "root": request.root_id,
        "routing_key": request.delivery_info["routing_key"],
        "custom": request.get("custom"),
        "name": self.name,
    }


class OrderNumber(Task):
    """A task that is a class."""

    name = "shop.orders.order_number"
    prefix = "A"

    def run(self, number):
        return f"{self.prefix}-{number:04d}"


class FancyOrderNumber(OrderNumber):
    name = "shop.orders.fancy_order_number"
    prefix = "F"


order_number = app.register_task(OrderNumber())
fancy_order_number = app.register_task(FancyOrderNumber())


@app.task(base=Noted, bind=True, max_retries=1)
def pack(self, fails=False):
    if not fails:
        return "packed"
    raise self.retry(exc=ValueError("broken"), countdown=0)


@app.task(base=Connected, bind=True)
def stock_of(self, item):
    return self.connection[item]


@app.task(bind=True)
def long_order(self, order):
    self.update_state(state="PROGRESS", meta={"current": 1, "total": 2})
    note(f"long-{order}")
    while not note_exists(f"go-{order}"):
        pass
    return "done"


def note_exists(word):
    import time

    from shop.ledger import lines

    time.sleep(0.05)
    return bool(lines(word))


@app.task(soft_time_limit=1, time_limit=5)
def too_slow():
    import time

    try:
        time.sleep(60)
    except SoftTimeLimitExceeded:
        return "stopped softly"


@app.task(bind=True)
def becomes(self, x):
    return self.replace(add.s(x, 1) | add.s(10))


@app.task(bind=True)
def opens(self, numbers):
    """Sends others, and does not wait for them."""
    return [add.delay(number, 1).id for number in numbers]


@app.task
def skipped():
    raise Ignore


@app.task
def urgent(text):
    note("urgent", text)
    return text


@app.task(serializer="shop-money")
def price(amount, times):
    return str(amount * times)


@app.task(serializer="pickle")
def tags(values):
    return sorted(values)
