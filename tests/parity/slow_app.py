"""What `celery -A tests.parity.slow_app worker` runs: its handlers take a while to import."""

from jobbridge import Celery

app = Celery("slow", include=["tests.parity.slow_tasks"])
