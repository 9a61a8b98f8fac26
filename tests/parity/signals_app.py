"""An app that notes each of Celery's signals."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from celery import signals

from tests.parity.feature_tasks import SIGNALS
from tests.parity.tasks import make_app


def _note(name: str) -> Any:
    def receiver(**_: Any) -> None:
        with (Path(os.environ["PARITY_FOLDER"]) / "signals").open("a") as file:
            file.write(f"{name}\n")

    return receiver


_RECEIVERS = {name: _note(name) for name in SIGNALS}  # signals keep no reference of their own
for _name, _receiver in _RECEIVERS.items():
    getattr(signals, _name).connect(_receiver)

app = make_app(include=["tests.parity.tasks", "tests.parity.feature_tasks"])
