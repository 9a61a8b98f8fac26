from celery import shared_task

from shop.models import Order


@shared_task
def confirm(order_id: int) -> str:
    order = Order.objects.get(pk=order_id)  # it is there: the job is part of the transaction that made it
    order.state = "confirmed"
    order.save()
    return order.item
