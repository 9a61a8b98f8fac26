"""What of durable jobs stands where tasks run: the calls of a job's context, and what a suspension is turned into.

In comes what the handler calls and raises; out goes what `jobbridge.app.durable` makes of it.
"""
