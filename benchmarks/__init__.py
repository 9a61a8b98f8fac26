"""`make bench`: how fast JobBridge is, beside other job queues on the same machine in the same minutes.

In go the servers (Postgres from its wheel, Redis and RabbitMQ from Debian) and the systems that are installed; out come
ratios, a picture, and `build/bench/latest.json`. What is measured and how: docs/benchmarks.md.
"""
