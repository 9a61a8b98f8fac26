"""Services that look after jobs which nothing else would bring on: relay, reaper, reconcilers, pruner.

Each is a small object with a name, an interval and a `run`. A `Maintainer` runs them on one thread, inside a worker
or alone (`jobbridge maintain`); of all maintainers of a database one runs each service, and the others stand ready.
"""
