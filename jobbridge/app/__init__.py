"""The Celery application that both engines share."""
