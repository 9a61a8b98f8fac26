"""Schedules of the table as Schedules of Temporal: mirrored, fired there with their books, reconciled."""
