"""Celery's settings; where broker and results are stands in the environment."""

from kombu import Exchange, Queue

task_default_queue = "shop"
task_queues = [
    Queue("shop", Exchange("shop"), routing_key="shop"),
    Queue("media", Exchange("media", type="topic"), routing_key="media.#"),
    Queue("urgent", Exchange("shop"), routing_key="urgent"),
]
task_default_exchange = "shop"
task_default_routing_key = "shop"
task_routes = (
    {"shop.media.*": {"queue": "media", "routing_key": "media.images"}},
    {"shop.orders.urgent": {"queue": "urgent", "routing_key": "urgent"}},
)
task_annotations = {"shop.reports.limited": {"rate_limit": "50/s"}}
accept_content = ["json", "pickle", "shop-money"]
result_accept_content = ["json", "pickle", "shop-money"]
task_track_started = True
worker_prefetch_multiplier = 1
task_acks_late = True
beat_schedule = {
    "tick-declared": {"task": "shop.reports.tick", "schedule": 1.0, "args": ("declared",)},
}
beat_max_loop_interval = 1
