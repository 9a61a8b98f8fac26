"""The record of one job: tables, rows, events as guarded statements, steps, keys, singletons, admission.

In come events of `core.events` and questions about one job; out go rows as values. No status changes elsewhere.
"""
