"""What the app tells an observer; `jobbridge.observability.tracing` is one. It sees, and never decides."""

from __future__ import annotations

from collections.abc import MutableMapping
from contextlib import AbstractContextManager
from typing import Any, Protocol


class Observer(Protocol):
    """Is told of messages that are sent and of steps; of tasks that run Celery's own signals tell."""

    def sending(
        self, name: str, headers: MutableMapping[str, Any], *, queue: str, former: str | None
    ) -> AbstractContextManager[object]:
        """Surround the sending of a task message; may add to its headers.

        Args:
            former: The trace of the job that is sent again, as in its `traceparent`.
        """

    def step(self, name: str, key: str | None) -> AbstractContextManager[object]:
        """Surround a step of the job that runs."""

    def carrier(self) -> dict[str, str]:
        """Give headers by which what is sent later, and from elsewhere, belongs to what runs now."""
