"""Procrastinate's, with its own settings."""

from __future__ import annotations

import os

import procrastinate

from benchmarks.apps import tasks

app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=os.environ["BENCH_DATABASE"]))

note = app.task(name="note")(tasks.note)
