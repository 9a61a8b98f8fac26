"""What happens after an order was taken."""

from models import Order, SessionLocal

from jobbridge import Celery

app = Celery("jobs")


@app.task(name="orders.confirm")
def confirm(order_id: int) -> str:
    with SessionLocal.begin() as session:
        order = session.get_one(Order, order_id)
        order.state = "confirmed"
        return f"{order.item} for {order.customer}"
