"""The shop's Celery application."""

from celery import Celery

from shop import serializers  # noqa: F401  (registers its own)

app = Celery("shop", include=["shop.orders", "shop.media", "shop.reports", "shop.hooks"])
app.config_from_object("shop.celeryconfig")


@app.on_after_finalize.connect
def more_periodic_tasks(sender, **kwargs):
    sender.add_periodic_task(1.0, sender.signature("shop.reports.tick", args=("added",)), name="tick-added")
