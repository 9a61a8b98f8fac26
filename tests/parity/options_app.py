"""An app whose code adds an option to `celery worker`, and a step that takes it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from celery import bootsteps
from celery.bin.base import CeleryOption

from tests.parity.tasks import make_app

app = make_app(include=["tests.parity.tasks"])


class Greets(bootsteps.Step):  # type: ignore[misc]  # untyped base
    def __init__(self, parent: Any, greeting: str | None = None, **options: Any) -> None:
        super().__init__(parent, **options)
        (Path(os.environ["PARITY_FOLDER"]) / "greeting").write_text(str(greeting))


app.steps["worker"].add(Greets)
app.user_options["worker"].add(CeleryOption(("--greeting",), help="What it says."))
