"""How a message reaches an engine other than the broker."""

from __future__ import annotations

from typing import Protocol

from jobbridge.core.envelope import Envelope
from jobbridge.core.events import Accepted
from jobbridge.errors import EngineUnavailable


class Delivery(Protocol):
    """The way to one engine. Safe to call from several threads; never used in a forked pool child."""

    def deliver(self, envelope: Envelope) -> Accepted:
        """Hand it over; handing over twice starts once.

        Raises:
            EngineUnavailable: It could not be reached; `certainly_not_started` tells what is known.
        """
        ...

    def prepare(self, *, asks: bool) -> None:
        """Make sure, before a job is recorded, that its settings can work; `asks`: it may also be asked.

        Raises:
            ConfigurationError: One cannot.
        """
        ...

    def check(self) -> None:
        """Ask whether it is there.

        Raises:
            EngineUnavailable: It cannot be reached, or could not be a moment ago.
        """
        ...

    def known_failure(self) -> EngineUnavailable | None:
        """Give the failure of a moment ago, for as long as it is not worth while to try again. Asks nobody."""
        ...

    def close(self) -> None:
        """Close its connections."""
        ...

    def cancel(self, task_id: str, *, reason: str | None, cancelled_by: str | None) -> bool:
        """Ask the engine to stop it; False when it knows no such running job.

        Raises:
            EngineUnavailable: It could not be reached.
        """
        ...
