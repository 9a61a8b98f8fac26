"""The job monitor: an ASGI application over the shared tables. `application.make_dashboard` makes it.

Here is what serves everything: the application, its visits (a request, who makes it, what they may see), who that is,
the looks at the installation, metrics and probes. Rooms: `access` (what a request goes through), `looking` (what is
shown, and how), `acting` (what people do, on record), `pages` and `api` (the routes), `live` (events).
"""
