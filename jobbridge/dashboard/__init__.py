"""The job monitor: an ASGI application over the shared tables. `application.make_dashboard` makes it.

Here is what serves everything: the application, the cache of findings, metrics and probes. Rooms: `access` (what a
request goes through, and its context: who makes it, what they may see), `views` (what is shown, and how), `actions`
(what people do, on record), `pages` and `api` (the routes), `live` (events).
"""
