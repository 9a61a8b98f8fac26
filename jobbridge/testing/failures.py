"""`fail_next`: the next executions of a task raise what a test says, instead of running."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from jobbridge.core.handlers import handler_of


class Failures:
    """The failures that one test has asked for.

    They are raised where the task's own code would be called: retries, error callbacks and rows are the real ones.
    """

    def __init__(self) -> None:
        self._wanted: dict[str, deque[BaseException]] = {}
        self._undo: list[Callable[[], None]] = []
        self._lock = threading.Lock()

    def add(self, task: Any, error: BaseException | type[BaseException], times: int) -> None:
        """Have the next `times` executions fail, after those that were asked for before."""
        made = [error() if isinstance(error, type) else error for _ in range(times)]
        with self._lock:
            if task.name not in self._wanted:
                self._wanted[task.name] = deque()
                self._replace(task)
            self._wanted[task.name].extend(made)

    def left(self) -> dict[str, int]:
        """Give how many failures have not happened, by task."""
        return {name: len(errors) for name, errors in self._wanted.items() if errors}

    def close(self) -> None:
        """Let all tasks be as they were."""
        while self._undo:
            self._undo.pop()()
        self._wanted.clear()

    def _replace(self, task: Any) -> None:
        spec = handler_of(task)
        if spec is not None:  # a handler: its retry policy is around its function
            self._replace_function(spec, "function", task.name, object.__setattr__)
        else:  # `autoretry_for` is around `_orig_run`
            self._replace_function(
                task, "_orig_run" if hasattr(task, "_orig_run") else "run", task.name, setattr
            )

    def _replace_function(self, holder: Any, attribute: str, name: str, put: Callable[..., None]) -> None:
        original = getattr(holder, attribute)
        is_own = attribute in getattr(holder, "__dict__", {}) or not hasattr(holder, "__dict__")

        def failing(*args: Any, **kwargs: Any) -> Any:
            with self._lock:
                wanted = self._wanted.get(name)
                error = wanted.popleft() if wanted else None
            if error is not None:
                raise error
            return original(*args, **kwargs)

        put(holder, attribute, failing)

        def undo() -> None:
            if is_own:
                put(holder, attribute, original)
            else:
                delattr(holder, attribute)

        self._undo.append(undo)
