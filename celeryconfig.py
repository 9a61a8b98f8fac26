"""Celery's settings for the app that JobBridge ships (`celery -A jobbridge worker`): read when the app is made.

Plain Celery settings; what is not said here is Celery's default, or JobBridge's where that matters (late
acknowledgement, the broker and the result backend in the database of DATABASE_URL). An app of your own configures
itself as any Celery app does, and does not read this file.
"""

# What crosses the wire is data, not code.
task_serializer = "json"
result_serializer = "json"
accept_content = ["json"]

# All instants are UTC; a schedule names its own zone.
enable_utc = True
timezone = "UTC"

# `celery events`, Flower and `celery inspect` see every job, on both engines.
worker_send_task_events = True
task_send_sent_event = True
