"""Postgres and Temporal for development and tests, from PyPI wheels; and `jobbridge dev`."""
