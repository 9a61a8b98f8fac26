"""Durable calls where there are no rows: what runs eagerly does not sleep, waits for nothing, and calls in place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from jobbridge.app.durable.signatures import signature_for
from jobbridge.core.retry import RetryPolicy

if TYPE_CHECKING:
    from jobbridge.app.application import Celery


class EagerCalls:
    """The durable calls of a job that runs eagerly.

    Args:
        app: Whose job.
    """

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._undo: list[tuple[Any, Sequence[Any], dict[str, Any]]] = []

    def run(
        self,
        name: str,
        fn: Callable[..., Any],
        args: Sequence[Any],
        kwargs: dict[str, Any],
        *,
        retry: RetryPolicy | None,
        key: str | None,
    ) -> Any:
        tries = 0
        while True:
            tries += 1
            try:
                return fn(*args, **kwargs)
            except Exception as error:
                if retry is None or not retry.allows_another(error, tries):
                    raise

    def sleep(self, span: float | timedelta) -> None:
        return None

    def sleep_until(self, at: datetime) -> None:
        return None

    def wait_for(self, name: str, timeout: float | timedelta | None, key: str | None, default: Any) -> Any:
        return default

    def call(self, task: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        signature = signature_for(self._app, task, args, kwargs)
        result = signature.apply()
        return result.get(disable_sync_subtasks=False)

    def gather(self, signatures: Sequence[Any]) -> list[Any]:
        results = [signature_for(self._app, each, (), {}).apply() for each in signatures]
        return [result.get(disable_sync_subtasks=False) for result in results]

    def version(self, name: str, number: int) -> int:
        return number

    def on_failure(self, undo: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
        self._undo.append((undo, args, kwargs))

    def undo(self) -> None:
        """Undo what was done, the last first."""
        while self._undo:
            undo, args, kwargs = self._undo.pop()
            task = self._app.tasks.get(undo) if isinstance(undo, str) else undo
            if hasattr(task, "apply"):
                task.apply(args=args, kwargs=kwargs)
            else:
                task(*args, **kwargs)
