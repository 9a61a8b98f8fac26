"""Pictures: tasks that are routed to a queue of their own."""

from celery import shared_task


@shared_task(bind=True)
def resize(self, name):
    return [name, self.request.delivery_info["routing_key"]]


@shared_task
def thumbnail(names):
    return [f"small {name}" for name, _ in names]
