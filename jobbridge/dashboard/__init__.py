"""The job monitor: an ASGI application over the shared tables. `application.make_dashboard` makes it."""
