"""The app of the release before: it does not know `parity.takes` yet."""

from __future__ import annotations

import tests.parity.tasks
from tests.parity.tasks import make_app

__all__ = ["tests"]

app = make_app()
app.finalize()
app.tasks.pop("parity.takes")
