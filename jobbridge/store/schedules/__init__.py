"""Schedules and their fires: what was declared, what was planned, what became of it.

In come definitions of `core.schedules`, out go rows as values; making the jobs of a fire is the app's.
"""
