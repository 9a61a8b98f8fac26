"""Potatoq's, with its own settings."""

from __future__ import annotations

import os

from potatoq import Potatoq

from benchmarks.apps import tasks

app = Potatoq("bench", broker=os.environ["BENCH_DATABASE"])

note = app.task(name="note", ignore_result=True)(tasks.note)
echo = app.task(name="echo")(tasks.echo)
total = app.task(name="total")(tasks.total)
